"""What server, sites and simulations share; knows none of them."""
