"""PrimFunc -> CUDA C: readable kernels, on the base of the C printer."""
