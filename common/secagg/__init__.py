"""Secure aggregation: sites send masked vectors, and the server can open their sum and nothing else."""
