"""Templates laid over the stored sequence (`snn.laws.store`), wherever they fit best within a few shifts.

The stored numbers are seen as a picture [rows, width], in the order of time: timestep by timestep, or as the pixels
of a picture that was read out one after another. Each is held as a bit z = [x >= a] for every one of the `levels` a.
A witness has a rectangle of the picture, with sides of side_min .. side_max, and a pattern v of +1 and -1 on the bits
in it: where those of an example sequence are 1 and 0 (`pattern: example`), or the sign of a smooth random field, the
same at all levels (`pattern: smooth`). For each shift s of the rectangle by up to `shifts` rows and columns an
integrator asks whether v_s.z >= b, and one neuron above them (leak 0, weights 1, bias -1/2, threshold 1/4) fires at T
iff

    max over s of v_s.z >= b

b is such that this holds for a share r of the examples, r log-uniform in `rate`. The examples are statistics of the
data (`calibrated`), which belong to the law: packed bits, so that a witness remains a function of (law, seed, id).
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy.ndimage import gaussian_filter

from snn.laws import store
from snn.laws.base import Floats, Reach, WitnessLaw, log_uniform, normals, tensor, uniforms
from snn.network import Layer, Network

Bits = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

MOST_EXAMPLES = 512  # on MNIST 200, 1,000 and 5,000 did equally well
MOST_BYTES = 2**19  # of examples: a model is one record, and a broker takes a megabyte
TRIES = 8  # rectangles drawn until a pattern is neither blank nor full
LEAST_SHARE = 0.1  # of either sign in a pattern
SMOOTHING = 1.5  # bits, standard deviation
RATE_GRID = 2.0**-12  # hides the last bit of exp, in which C libraries differ
SMOOTH_GRID = 2.0**-12  # and here
TOGETHER = 256  # witnesses whose b is sought at once


class StoredTemplates(WitnessLaw):
    name: Literal["stored_templates"] = "stored_templates"
    width: int | None = Field(default=None, ge=1, description="bits of a row; the features of a timestep by default")
    side_min: int = Field(default=6, ge=1)
    side_max: int = Field(default=12, ge=1, le=64)
    shifts: int = Field(default=1, ge=0, le=3)
    levels: tuple[float, ...] = Field(default=store.HALF, min_length=1, max_length=8)
    pattern: Literal["example", "smooth"] = "example"
    rate: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=0, lt=1)]] = (0.03, 0.4)
    examples: str | None = Field(default=None, max_length=MOST_BYTES * 4 // 3 + 4, description="base64, of `calibrate`")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.side_min > self.side_max:
            raise ValueError(f"expected side_min <= side_max, got {self.side_min} > {self.side_max}")
        if self.rate[0] > self.rate[1]:
            raise ValueError(f"expected rate[0] <= rate[1], got {self.rate[0]} > {self.rate[1]}")
        store.check(self.levels)
        return self

    def calibrated(self, inputs: npt.NDArray[np.floating]) -> Self:
        size = inputs[0].size * len(self.levels)
        count = min(len(inputs), MOST_EXAMPLES, MOST_BYTES // -(-size // 8))
        chosen = inputs[np.linspace(0, len(inputs) - 1, count).astype(np.int64)]
        bits = chosen[..., None] >= np.asarray(self.levels)
        packed = np.packbits(bits.reshape(count, size), axis=1, bitorder="little")
        return self.model_copy(update={"examples": base64.b64encode(packed.tobytes()).decode()})

    def reach(self, timesteps: int, features: int) -> list[Reach]:
        self._examples(*self._shape(timesteps, features))
        most, copies = self.side_max**2 * len(self.levels), (2 * self.shifts + 1) ** 2
        integrator = Reach(most, 1, 0, max_pulse=2 * most + 2, bits=store.BITS)
        return [*store.reach(timesteps, features, self.levels), integrator, Reach(copies, 1, 0.5, bits=store.BITS)]

    def sample(self, seed: int, ids: Sequence[int], timesteps: int, features: int) -> Network:
        rows, width = self._shape(timesteps, features)
        examples = self._examples(rows, width)
        draws = uniforms(seed, ids, 1 + TRIES * 5 + self.side_max**2)
        template = self._templates(draws[:, 1 : 1 + TRIES * 5], draws[:, 1 + TRIES * 5 :], examples)
        everywhere = self._shifted(template)  # [P, copies, rows, width, levels]
        v = everywhere.reshape(*everywhere.shape[:2], examples[0].size)
        rate = np.round(log_uniform(draws[:, 0], self.rate) / RATE_GRID) * RATE_GRID
        b = _level(v, examples.reshape(len(examples), -1), rate)
        count, copies, gates = v.shape
        either = Layer(
            tensor(np.ones((count, copies, 1))),
            tensor(np.full(count, -0.5)),
            tensor(np.zeros(count)),
            tensor(np.full(count, 0.25)),
        )
        integrators = store.integrators(v.reshape(-1, gates), np.repeat(b, copies))
        return (*store.trunk(timesteps, features, self.levels), integrators, either)

    def _templates(self, tries: Floats, field: Floats, examples: Bits) -> npt.NDArray[np.float32]:
        """[P, rows, width, levels] of +1, -1 and, outside the rectangle, 0."""
        _, rows, width, levels = examples.shape
        chosen = np.zeros((len(tries), rows, width, levels), np.float32)
        for template, some, normal in zip(chosen, tries.reshape(len(tries), TRIES, 5), field, strict=True):
            for u in some:
                high, wide = (self.side_min + np.floor(u[:2] * (self.side_max - self.side_min + 1))).astype(int)
                top, left = int(u[2] * (rows - high + 1)), int(u[3] * (width - wide + 1))
                at = slice(top, top + high), slice(left, left + wide)
                if self.pattern == "smooth":
                    noise = normals(normal[: high * wide]).reshape(high, wide)
                    positive = np.round(gaussian_filter(noise, SMOOTHING, mode="nearest") / SMOOTH_GRID)[..., None] > 0
                else:
                    positive = examples[int(u[4] * len(examples))][at]
                if LEAST_SHARE < positive.mean() < 1 - LEAST_SHARE:
                    break
            template[at] = np.where(positive, 1, -1)
        return chosen

    def _shifted(self, templates: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[P, copies, rows, width, levels], what leaves the picture cut off."""
        reach = self.shifts
        _, rows, width, _ = templates.shape
        padded = np.pad(templates, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        starts = range(2 * reach + 1)
        return np.stack([padded[:, r : r + rows, c : c + width] for r in starts for c in starts], axis=1)

    def _shape(self, timesteps: int, features: int) -> tuple[int, int]:
        """[rows, width] of the picture."""
        width = features if self.width is None else self.width
        rows, rest = divmod(timesteps * features, width)
        if rest or min(rows, width) < self.side_max:
            raise ValueError(
                f"law stored_templates: expected a width that divides timesteps * features = {timesteps} * {features}, "
                f"and at least side_max = {self.side_max} rows and columns, got width {width}"
            )
        return rows, width

    def _examples(self, rows: int, width: int) -> Bits:
        """[n, rows, width, levels]."""
        if self.examples is None:
            raise ValueError("law stored_templates: expected examples; `spikeloom calibrate` takes them from data")
        try:
            packed = np.frombuffer(base64.b64decode(self.examples, validate=True), np.uint8)
        except binascii.Error as error:
            raise ValueError(f"law stored_templates: expected examples in base64: {error}") from None
        levels = len(self.levels)
        count = rows * width * levels
        size = -(-count // 8)
        if not len(packed) or len(packed) % size:
            by_levels = f" * {levels} levels" if levels > 1 else ""
            raise ValueError(
                f"law stored_templates: expected examples of {size} bytes each, for {rows} * {width}{by_levels} bits, "
                f"got {len(packed)} bytes in all"
            )
        bits = np.unpackbits(packed.reshape(-1, size), axis=1, count=count, bitorder="little")
        return bits.astype(np.bool_).reshape(-1, rows, width, levels)


def _level(v: npt.NDArray[np.float32], examples: Bits, share: Floats) -> Floats:
    """[P] half-integers that the best copy of v [P, copies, gates] reaches on a `share` of the examples [n, gates]."""
    z, b = examples.astype(np.float32), np.empty(len(v))
    rank = np.maximum(1, np.ceil(share * len(examples))).astype(np.int64) - 1
    for start in range(0, len(v), TOGETHER):
        some = v[start : start + TOGETHER]
        reached = z @ some.reshape(-1, some.shape[2]).T  # whole numbers: exact in any order
        best = reached.reshape(len(z), *some.shape[:2]).max(axis=2).T
        ordered = -np.sort(-best, axis=1)
        b[start : start + TOGETHER] = ordered[np.arange(len(best)), rank[start : start + TOGETHER]] - 0.5
    return b
