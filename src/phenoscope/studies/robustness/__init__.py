"""Studies of the section robustness."""
