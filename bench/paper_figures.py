"""The paper's own figures (seeds/003, sections 4 and 5), beside which `paper` and `witness_laws` put ours.

Our text of it has lost its formulas, and with them most numbers of depths, lengths and widths. What stands here for
them: depths 3, 5, 7, 10 and 3, 6, 10 in the order of the rows of the depth ablations, of which the text says that they
end at 10; 10 for the second half of table 2; lengths 5, 10, 15, 20 as in design.md; lengths 20, 50, 100 of the three
columns of table 3, of which the text says that they go up to ten times that of training; square patches of 7, 4 and 2
pixels for the three rows of MNIST's timesteps.
"""

from typing import NamedTuple


class Figures(NamedTuple):
    """Accuracy of the paper's best variant on convex readouts and of its best by surrogate gradients."""

    cvx: float
    sg: float


class Solved(NamedTuple):
    """Of one readout on first-last XOR. The paper does not say what its objective divides by."""

    accuracy: float
    primal: float
    dual: float


SHALLOW, DEEP = 3, 10
TRAINED_AT = 10  # digits of the numbers that are added
LONGER = (20, 50, 100)

GAP = {  # table 1: by the number of subnetworks
    2: Solved(0.7471, 0.9817, 0.9817),
    16: Solved(0.8223, 0.8370, 0.8370),
    32: Solved(0.7607, 0.9459, 0.9459),
    64: Solved(0.8643, 0.8734, 0.8734),
}
ADDITION = {  # table 2, by depth and base
    SHALLOW: {2: Figures(0.954, 0.738), 3: Figures(0.363, 0.212), 5: Figures(0.235, 0.189)},
    DEEP: {2: Figures(0.500, 0.103), 3: Figures(0.269, 0.239), 5: Figures(0.144, 0.144)},
}
XOR_DEEP_AND_LONG = Figures(0.504, 0.504)  # table 2: T = 20
LENGTHS = {  # table 3, by base and variant: at TRAINED_AT and each of LONGER
    3: {
        "SG": (0.217, 0.197, 0.182, 0.177),
        "SG-SG": (0.238, 0.220, 0.207, 0.202),
        "CVX": (0.366, 0.302, 0.254, 0.234),
        "SG-CVX": (0.340, 0.314, 0.307, 0.310),
    },
    5: {
        "SG": (0.159, 0.148, 0.142, 0.141),
        "SG-SG": (0.178, 0.163, 0.152, 0.153),
        "CVX": (0.218, 0.164, 0.135, 0.125),
        "SG-CVX": (0.230, 0.188, 0.173, 0.172),
    },
}
XOR_DEPTHS = {  # table 4 (a): T = 5
    3: Figures(1.000, 0.746),
    5: Figures(1.000, 0.744),
    7: Figures(0.973, 0.501),
    10: Figures(0.841, 0.504),
}
XOR_TIMESTEPS = {  # table 4 (b): depth 3
    5: Figures(1.000, 0.746),
    10: Figures(1.000, 0.724),
    15: Figures(0.864, 0.622),
    20: Figures(0.689, 0.640),
}
MNIST_DEPTHS = {  # table 5 (a): rows, T = 28
    3: Figures(0.925, 0.913),
    6: Figures(0.844, 0.740),
    10: Figures(0.271, 0.099),
}
MNIST_PATCHES = {  # table 5 (b), by the pixels of a patch's side: T = (28 / side)^2
    7: Figures(0.803, 0.7835),
    4: Figures(0.831, 0.763),
    2: Figures(0.821, 0.687),
}
SCALING = {  # table 6, addition in base 2: by training sequences, whole sequences right
    512: Figures(0.571, 0.160),
    2304: Figures(0.717, 0.183),
    4096: Figures(0.730, 0.163),
    5888: Figures(0.725, 0.184),
    7680: Figures(0.728, 0.152),
}
SCALING_TOKENS = {  # table 6: tokens right
    512: Figures(0.907, 0.737),
    2304: Figures(0.951, 0.744),
    4096: Figures(0.954, 0.738),
    5888: Figures(0.954, 0.738),
    7680: Figures(0.954, 0.738),
}


def best(base: int, length: int) -> Figures:
    """Of table 3, for numbers of one of `LONGER` digits."""
    column = 1 + LONGER.index(length)
    of = LENGTHS[base]
    return Figures(max(of[v][column] for v in ("CVX", "SG-CVX")), max(of[v][column] for v in ("SG", "SG-SG")))
