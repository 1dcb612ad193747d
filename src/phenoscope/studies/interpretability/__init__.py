"""Studies of the section interpretability."""
