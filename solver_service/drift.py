"""Whether the rule of the stream has changed: fresh rows, which no readout has seen, are answered worse than before.

Fisher's exact test: given how many of the newest rows and of the fresh rows before them, since the last change, were
answered wrongly, the chance that as many as these are among the newest, if the rule is the same, is below CHANCE. The
first SKIPPED batches after a change do not count: a readout of few rows is still learning.
"""

from scipy.stats import hypergeom

CHANCE = 1e-5
SKIPPED = 2


class Drift:
    def __init__(self) -> None:
        self._wrong = self._count = self._batches = 0

    def happened(self, wrong: int, count: int) -> bool:
        """Take in that `wrong` of `count` fresh rows were answered wrongly; whether the rule has changed."""
        rows, all_wrong = self._count + count, self._wrong + wrong
        if self._count and hypergeom.sf(wrong - 1, rows, all_wrong, count) < CHANCE:
            self._wrong = self._count = self._batches = 0
            return True
        self._batches += 1
        if self._batches > SKIPPED:
            self._wrong, self._count = all_wrong, rows
        return False
