"""One pass over a weight and its previous copy: measure what moved, and bring the copy up to date.

`meter` chooses the compiled pass for a device: numba on CPU, Triton on CUDA, plain torch where neither is there.
"""
