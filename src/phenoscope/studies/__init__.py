"""One file a catalogue entry: the experiment, what its claims observe, its figure."""
