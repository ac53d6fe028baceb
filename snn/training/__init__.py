"""Training by other means than a convex readout: surrogate gradients and emotion-driven Hebbian learning, as pure
functions. Torch is imported where it is needed."""
