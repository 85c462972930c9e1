"""Worker processes of one search: locks, registry, the common goal, latencies measured once for all."""
