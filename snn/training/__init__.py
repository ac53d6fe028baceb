"""Training by surrogate gradients: pure functions on one vector of parameters. Torch is imported where it is needed."""
