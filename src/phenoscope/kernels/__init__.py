"""Functions that need a Gram matrix: tangent kernels, linearized networks."""

__all__: list[str] = []
