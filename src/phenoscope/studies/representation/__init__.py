"""Studies of the section representation."""
