"""Where gradient descent goes, in closed form or by a small system of equations."""
