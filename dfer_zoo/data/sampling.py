"""Which frames of a clip are shown to a net.

Both rules take one frame from each of T equal parts of the clip, so every index lies inside the clip and time never
runs backwards. Training draws it from the integer segment ``floor(i n / T)`` to ``floor((i + 1) n / T) - 1`` of the n
frames, evaluation takes the one at the middle of the part, ``floor((i + 1/2) n / T)``.
"""

import numpy as np


def centred(count: int, frames: int) -> np.ndarray:
    """Choose the frame at the middle of every part: the rule of every evaluation.

    Clips shorter than `frames` are stretched evenly: frames repeat, none is dropped.

    Args:
        count: number of frames of the clip, at least 1.
        frames: number of frames wanted, T.

    Returns:
        T indices in 0..count-1, not decreasing; int64.

    >>> centred(70, 8)
    array([ 4, 13, 21, 30, 39, 48, 56, 65])
    >>> centred(3, 8)
    array([0, 0, 0, 1, 1, 2, 2, 2])
    """
    return (2 * np.arange(frames) + 1) * count // (2 * frames)


def one_per_segment(count: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one random frame of every segment: the rule of training. Strictly increasing.

    Clips shorter than `frames` have empty segments: they are stretched evenly, as in `centred`.

    Args:
        count: number of frames of the clip, at least 1.
        frames: number of frames wanted, T.
        rng: where the draws come from.

    Returns:
        T indices in 0..count-1; int64.
    """
    if count < frames:
        return centred(count, frames)
    edges = np.arange(frames + 1) * count // frames
    return rng.integers(edges[:-1], edges[1:])
