"""Arrays inside a menu's arguments, where plotly for Python would write them out digit by digit."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np


def packed(values: np.ndarray) -> dict[str, Any]:
    """Numbers as float32 in base64, in the form that plotly.js reads."""
    data = base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()
    shape = {"shape": ", ".join(map(str, values.shape))} if values.ndim > 1 else {}
    return {"dtype": "f4", "bdata": data, **shape}
