"""Images drawn to order, every factor of which is known."""
