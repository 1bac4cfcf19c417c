"""The seed of a step of training, as workers hash it from the run's seed and the step's place."""

from __future__ import annotations

#: Separates these seeds from other hashes; the worker has the same bytes.
_STEP = bytes.fromhex("6d69737362656e63682073746570")
_IV = (
    0x6A09E667,
    0xBB67AE85,
    0x3C6EF372,
    0xA54FF53A,
    0x510E527F,
    0x9B05688C,
    0x1F83D9AB,
    0x5BE0CD19,
)
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
#: Columns, then diagonals.
_MIXED = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)
_WORD = 0xFFFFFFFF
#: The pass of what belongs to a whole epoch.
WHOLE_EPOCH = (1 << 64) - 1


def step_seed(run_seed: int, epoch: int, pass_: int, step: int) -> int:
    """The lower 32 bits of the seed."""
    parts = (run_seed, epoch, pass_, step)
    return _blake3_word(_STEP + b"".join(part.to_bytes(8, "little") for part in parts))


def _blake3_word(message: bytes) -> int:
    """The first 32 bits of the BLAKE3 hash of at most 64 bytes: one block, which is the whole tree. Python has no
    BLAKE3, and a dependency for one number would be too much."""
    assert len(message) <= 64
    block = message.ljust(64, b"\0")
    words = [int.from_bytes(block[at : at + 4], "little") for at in range(0, 64, 4)]
    # No counter; the block's length; the flags of a chunk's start and end, and of the root.
    state = [*_IV, *_IV[:4], 0, 0, len(message), 1 | 2 | 8]

    def turned(value: int, by: int) -> int:
        return (value >> by | value << (32 - by)) & _WORD

    for _ in range(7):
        for i, (a, b, c, d) in enumerate(_MIXED):
            for word, (first, second) in ((words[2 * i], (16, 12)), (words[2 * i + 1], (8, 7))):
                state[a] = (state[a] + state[b] + word) & _WORD
                state[d] = turned(state[d] ^ state[a], first)
                state[c] = (state[c] + state[d]) & _WORD
                state[b] = turned(state[b] ^ state[c], second)
        words = [words[place] for place in _PERMUTATION]
    return state[0] ^ state[8]
