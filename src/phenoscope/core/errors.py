"""The one error that the command line turns into a plain line."""


class InputError(ValueError):
    """What the user gave cannot be used; the message names the culprit and says what to do."""
