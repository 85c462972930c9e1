"""Latency measured on an edge host: the agent there, the pipe to it, ssh, retries."""
