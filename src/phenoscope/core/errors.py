"""How this package speaks to its user when something is wrong."""

import sys
import warnings


class InputError(ValueError):
    """What the user gave cannot be used; the message names the culprit and says what to do."""


def say(message: str) -> None:
    """Say something to the user from inside training, where even a warning that is an error must not stop it."""
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    except Warning:
        print(f"phenoscope: {message}", file=sys.stderr)
