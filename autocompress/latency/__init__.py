"""What a candidate is worth: accuracy of the exported file, latency on a device or by its model."""
