"""Scripts that print the figures of the claims, ours beside the other side: see README.md."""
