"""The `phenoscope` command."""
