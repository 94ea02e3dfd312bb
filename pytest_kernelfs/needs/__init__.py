"""What tests need of a kernel (the marker ``kernel_needs``): written, settled from files, or probed."""
