"""Studies of the section explained."""
