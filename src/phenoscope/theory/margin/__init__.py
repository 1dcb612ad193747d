"""Which of the functions that fit the data: those of largest margin, and those that fit exactly."""
