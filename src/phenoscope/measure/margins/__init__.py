"""How far a network is from deciding otherwise."""
