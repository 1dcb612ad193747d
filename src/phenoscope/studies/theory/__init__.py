"""Studies of the section theory."""
