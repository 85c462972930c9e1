"""Training a compressed network on, under its constraints."""
