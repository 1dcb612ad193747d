"""Studies of the section empirical."""
