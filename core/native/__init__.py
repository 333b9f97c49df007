"""Optional kernels in C; everything works without them, slower."""
