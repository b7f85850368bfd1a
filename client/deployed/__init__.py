"""A shipped model at work in a hospital: opened, asked, governed."""
