"""Flink keys for (lane, shard), chosen so that every parallelism shares them out evenly.

Flink sends a key to the task  murmur(hash(key)) % MAX_PARALLELISM * parallelism // MAX_PARALLELISM  (its
KeyGroupRangeAssignment). Left to that hash, one of two tasks may get ten of sixteen lanes and the job the pace of it.
So each (lane, shard) gets a number whose hash falls into a key group of its own, the groups at even distances.
"""

import numpy as np
import numpy.typing as npt

MAX_PARALLELISM = 1024  # of every job; fixed, because a savepoint can only be rescaled under it


def flink_keys(slots: int) -> list[int]:
    """Distinct keys for the slots 0 .. slots-1, where slot = lane * shards + shard."""
    if slots > MAX_PARALLELISM:
        return list(range(slots))  # so many are even enough by chance
    first_of_group: dict[int, int] = {}
    candidates = np.arange(32 * MAX_PARALLELISM)  # a group is missed by all with probability e^-32
    for key, group in zip(candidates.tolist(), _key_group(candidates).tolist(), strict=True):
        first_of_group.setdefault(group, key)
    return [first_of_group[(2 * slot + 1) * MAX_PARALLELISM // (2 * slots)] for slot in range(slots)]


def _key_group(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """MathUtils.murmurHash of Flink on Java's hash code of an int, which is the int."""
    code = keys.astype(np.uint32) * np.uint32(0xCC9E2D51)
    code = _rotated(code, 15) * np.uint32(0x1B873593)
    code = _rotated(code, 13) * np.uint32(5) + np.uint32(0xE6546B64)
    code ^= np.uint32(4)
    code = (code ^ (code >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    code = (code ^ (code >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    code ^= code >> np.uint32(16)
    return np.abs(code.astype(np.int32).astype(np.int64)) % MAX_PARALLELISM


def _rotated(code: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.uint32]:
    return (code << np.uint32(bits)) | (code >> np.uint32(32 - bits))
