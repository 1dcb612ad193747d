"""Which parts of an input speak for an output."""
