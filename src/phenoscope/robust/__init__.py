"""Attacks, and training that withstands them."""

from .attacks.balls import project
from .attacks.evaluate import error_decomposition, evaluate
from .attacks.pgd import pgd
from .attacks.random_search import random_search
from .training.adversarial import adversarial_loss, adversarial_train
from .training.trades import trades_loss

__all__ = [
    "adversarial_loss",
    "adversarial_train",
    "error_decomposition",
    "evaluate",
    "pgd",
    "project",
    "random_search",
    "trades_loss",
]
