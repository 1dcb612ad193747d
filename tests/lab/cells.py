"""Cells that the tests of the engines run in other processes; each also counts how often it was begun."""

import os
import signal
import threading
import time
from pathlib import Path

import xarray as xr


def begun(folder, name):
    """How often a cell was begun."""
    return len(list(Path(folder).glob(f"{name}-*")))


def _begin(folder, name):
    (Path(folder) / f"{name}-{time.time_ns()}-{os.getpid()}").touch()


def square(lab, *, number, folder=None):
    if folder:
        _begin(folder, number)
    return xr.Dataset({"square": number**2, "seed": lab.seed("square", number), "process": os.getpid()})


def array(lab, *, number):
    return xr.DataArray([float(number), 1.0], dims="place", coords={"place": ["first", "second"]}, name="value")


def sometimes_fails(lab, *, number):
    if number == 2:
        raise ZeroDivisionError("nothing to divide by")
    return xr.Dataset({"number": number})


def dies_once(lab, *, number, folder):
    _begin(folder, number)
    if number == 1 and begun(folder, number) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return xr.Dataset({"number": number})


def always_dies(lab, *, number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return xr.Dataset({"number": number})


def slow(lab, *, number, folder, seconds):
    _begin(folder, number)
    time.sleep(seconds)
    return xr.Dataset({"number": number})


def chatty(lab, *, number):
    print("this goes to standard output")
    return xr.Dataset({"number": number})


def wrong(lab, *, number):
    return number


def barrier(lab, *, number, folder):
    """Ends only if another cell runs at the same time."""
    _begin(folder, "barrier")
    limit = time.monotonic() + 60
    while begun(folder, "barrier") < 2:
        if time.monotonic() > limit:
            raise TimeoutError
        threading.Event().wait(0.02)
    return xr.Dataset({"number": number})
