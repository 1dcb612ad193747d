"""How often values by filter are kept, so that they stay within a bound on disk."""

from __future__ import annotations

from ..core.errors import say


class Thinning:
    """Keeps every record's values until half of the bound is used, then every second's until three quarters are, ...

    Args:
        max_bytes: the bound.
        records: how many there were before.
        kept: of how many of them the values were kept.
        stride: how many records then came on one that was kept.
    """

    def __init__(self, max_bytes: float, *, records: int = 0, kept: int = 0, stride: int = 1) -> None:
        self._max_bytes, self._next, self._kept, self.stride = max_bytes, records, kept, stride

    def keep(self, size: int) -> bool:
        """Whether the values of the next record, of that many bytes, are kept."""
        keep = self._next % self.stride == 0 and (self._kept + 1) * size <= self._max_bytes
        self._next += 1
        self._kept += keep
        if keep and self._max_bytes - self._kept * size < self._max_bytes / (2 * self.stride):
            self.stride *= 2
            if self.stride == 2:
                say(
                    f"half of max_bytes={self._max_bytes:.3g} is used: values by filter are kept ever more rarely "
                    "from here on; layer means still at every record"
                )
        return keep
