"""FASA: federated attention-statistics alignment, one idea a file; `method.py` puts them together."""
