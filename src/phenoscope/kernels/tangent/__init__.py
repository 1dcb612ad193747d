"""The parts of `empirical_ntk`: rules of layers, blocks of examples, their products, and where they are kept."""
