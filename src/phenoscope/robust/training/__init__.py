"""Training that withstands attacks."""
