"""What a network could fit, in numbers: the measures of complexity, and how well each ranks generalization."""
