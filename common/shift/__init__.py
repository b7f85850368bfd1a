"""Attention Distribution Distance: how differently one model looks at two sites, and whether that is chance."""
