"""Real servers for tests, and a bad network in front of them."""
