"""What PyTorch and Python need to be told: lazy imports, caches, tracing, forward mode, idle threads."""
