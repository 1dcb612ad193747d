"""Numbers about the gradients of single examples."""
