"""Whether probabilities are what they say."""
