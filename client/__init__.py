"""One site: what runs at a hospital."""
