"""Every seed of a study, from one root seed and a path of names."""

from __future__ import annotations

import hashlib
import json


def seed_for(root: int, *path: str | int | float) -> int:
    """The seed that belongs to a path of names: always the same one, and unrelated to that of any other path.

    Args:
        root: the root seed of a run.
        path: what the seed is for, as `"split", 3`.

    Returns:
        The first 32 bits of SHA-256 over the root and the path: a seed that torch, NumPy and scikit-learn all take.

    Examples:
        >>> seed_for(0, "split", 3) == seed_for(0, "split", 3) != seed_for(0, "split", 4)
        True
    """
    text = json.dumps([int(root), *(part if isinstance(part, str) else float(part) for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
