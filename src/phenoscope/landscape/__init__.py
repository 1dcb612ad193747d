"""The loss around a point: its curvature, and what it is along lines and planes between states."""

from .products import ggn_product, hvp, loss_gradient

__all__ = ["ggn_product", "hvp", "loss_gradient"]
