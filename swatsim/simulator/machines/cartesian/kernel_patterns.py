"""Blocks of pixels as patterns of classes: those that repeat are found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swatsim.jit import inner

Words = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

#: Fewer than these have keys of 16 bits, of which 0 is none.
MAX_CLASSES = 2**16

#: An odd number with well spread bits, for multiplicative hashing.
MIXER = np.uint64(0x9E3779B97F4A7C15)


@inner
def find_patterns(queue: Counts, starts: Counts, classes: int, vector: int):  # type: ignore[no-untyped-def]
    """Cut each part of a queue into blocks of at most `vector` pixels, and find those that repeat.

    The cost of a block depends on which classes are in it, not on their order, and a few thousand
    combinations make up the blocks of all PEs and samples: each is costed once. Where there are
    more classes than a key has room for (a kernel above some 120 x 120), none is looked for.
    Returns the pattern of every block, where each part's blocks begin, and the patterns, padded
    with -1.
    """
    parts = starts.size - 1
    blocks = min(queue.size, queue.size // vector + parts)  # at most
    pattern_of = np.empty(blocks, np.int64)
    begins = np.zeros(starts.size, np.int64)
    patterns = np.empty((blocks, vector), np.int64)
    patterns.fill(-1)
    size = 16
    while size < 2 * blocks:
        size *= 2
    assert blocks < 2**31, "the queue alone would take 16 GiB"
    slots = np.empty(size, np.int32)  # open addressing: slot -> pattern
    slots.fill(-1)
    keys = np.empty((blocks, 2), np.uint64)
    block = known = 0
    for part in range(parts):
        first = starts[part]
        while first < starts[part + 1]:
            length = min(vector, starts[part + 1] - first)
            if classes < MAX_CLASSES:
                low, high = key_of(queue[first : first + length], classes)
            else:
                low, high = np.uint64(block), np.uint64(0)
            slot = np.int64((low ^ high) * MIXER >> np.uint64(32)) & (size - 1)
            while slots[slot] >= 0 and (
                keys[slots[slot], 0] != low or keys[slots[slot], 1] != high
            ):
                slot = (slot + 1) & (size - 1)
            if slots[slot] < 0:
                slots[slot] = known
                keys[known, 0], keys[known, 1] = low, high
                for i in range(length):
                    patterns[known, i] = queue[first + i]
                known += 1
            pattern_of[block] = slots[slot]
            block += 1
            first += length
        begins[part + 1] = block
    return pattern_of[:block], begins, patterns[:known]


@inner
def sorted_four(block: Counts) -> np.uint64:
    """Return four classes as `key_of` does, the usual size of a block, sooner."""
    a, b = min(block[0], block[1]), max(block[0], block[1])
    c, d = min(block[2], block[3]), max(block[2], block[3])
    b, c, least, most = max(a, c), min(b, d), min(a, c), max(b, d)
    b, c = min(b, c), max(b, c)
    packed = least + 1 | b + 1 << 16 | c + 1 << 32
    return np.uint64(packed) | np.uint64(most + 1) << np.uint64(48)


@inner
def key_of(block: Counts, classes: int):  # type: ignore[no-untyped-def]
    """Return a block of at most 8 classes below 2**16 - 1 as two words, whatever their order.

    Up to 16 classes: how often each comes up, 4 bits each. More: sorted, 16 bits each.
    """
    low = high = np.uint64(0)
    if classes <= 16:
        for i in range(block.size):
            low += np.uint64(1) << np.uint64(4 * block[i])
        return low, high
    if block.size == 4:
        return sorted_four(block), high
    for i in range(block.size):
        place = 0  # counted, not sorted: no branch that would be guessed wrong
        for j in range(block.size):
            place += int((block[j] < block[i]) | ((block[j] == block[i]) & (j < i)))
        word = np.uint64(block[i] + 1) << np.uint64(16 * (place % 4))
        if place < 4:
            low |= word
        else:
            high |= word
    return low, high
