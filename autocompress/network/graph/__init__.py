"""The network as a graph: layers, channel dependencies, kernels, and what runs of calibration data show of them."""
