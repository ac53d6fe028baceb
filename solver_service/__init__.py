"""From spike columns to a certified readout: dictionary, convex problem, solvers, certificate, publisher."""
