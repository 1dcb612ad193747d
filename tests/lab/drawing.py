"""A cell that needs torch; the others do without it, so that their processes start quickly."""

import random

import numpy as np
import torch
import xarray as xr


def draws(lab, *, number):
    """Draws from every global random state, and says how many threads there are."""
    product = torch.randn(300, 300) @ torch.randn(300, 300)
    return xr.Dataset(
        {
            "torch": float(product.sum()),
            "numpy": np.random.rand(),  # noqa: NPY002
            "python": random.random(),
            "threads": torch.get_num_threads(),
        }
    )
