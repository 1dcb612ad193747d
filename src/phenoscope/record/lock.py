"""One writer a run: a lock on its folder, which the system lets go of when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path

from ..core.errors import InputError

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

_locks: weakref.WeakSet[Lock] = weakref.WeakSet()  # of this process


class Lock:
    """Holds a run's folder until `release`, or until the process is gone.

    The lock lies on the open folder and leaves no file behind. File systems that cannot lock a folder do without.

    Args:
        path: the folder.

    Raises:
        InputError: another recorder, of this process or of another one on this machine, holds it.
    """

    def __init__(self, path: Path) -> None:
        self._folder: int | None = None
        self._place = None
        if fcntl is None:
            return
        with contextlib.suppress(OSError):  # a folder that may be written and not be read
            self._folder = os.open(path, os.O_RDONLY)
        if self._folder is None:
            return
        self._place = _place(self._folder)
        here = any(lock._place == self._place for lock in _locks)
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            who = "another recorder of this process: close that one first" if here else "another process: let it end"
            raise InputError(f"{path} is being written by {who}, or choose another folder") from None
        except OSError:  # a network file system without locks
            self._close()
            return
        _locks.add(self)

    def release(self) -> None:
        """Let go, also for processes that were forked meanwhile; a second call does nothing."""
        if self._folder is not None and self in _locks:
            _locks.discard(self)
            with contextlib.suppress(OSError):
                fcntl.flock(self._folder, fcntl.LOCK_UN)
        self._close()

    def _close(self) -> None:
        folder, self._folder, self._place = self._folder, None, None
        if folder is not None:
            os.close(folder)


def _place(folder: int) -> tuple[int, int]:
    found = os.fstat(folder)
    return found.st_dev, found.st_ino


def _drop() -> None:
    """A forked process (a worker of a loader, say) does not write, and must not hold the lock beyond its parent.

    To close is not to unlock: the parent goes on holding it.
    """
    for lock in list(_locks):
        lock._close()
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop)
