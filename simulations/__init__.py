"""Many sites on one machine, studies and reports; shipped to no hospital."""
