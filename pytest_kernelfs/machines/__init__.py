"""Where kernels run: machines, and the providers that make them."""
