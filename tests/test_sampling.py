"""Which frames are shown: inside the clip, in order of time, one of each part."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfer_zoo.data.sampling import centred, one_per_segment

COUNTS = st.integers(1, 2000)
FRAMES = st.integers(1, 64)
SEEDS = st.integers(0, 2**32 - 1)


def check_indices(indices: np.ndarray, count: int, frames: int) -> None:
    assert indices.shape == (frames,)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < count
    steps = np.diff(indices)
    assert (steps >= 0).all()
    if count >= frames:
        assert (steps > 0).all()
    else:
        assert set(indices.tolist()) == set(range(count)), "a short clip is stretched, none of its frames is lost"


@given(COUNTS, FRAMES)
def test_centred_indices_are_ordered_and_inside(count, frames):
    check_indices(centred(count, frames), count, frames)


@given(COUNTS, FRAMES, SEEDS)
def test_random_indices_are_ordered_and_inside(count, frames, seed):
    check_indices(one_per_segment(count, frames, np.random.default_rng(seed)), count, frames)


@given(COUNTS, FRAMES, SEEDS)
def test_random_index_i_lies_in_segment_i(count, frames, seed):
    indices = one_per_segment(count, frames, np.random.default_rng(seed))
    if count < frames:
        assert indices.tolist() == centred(count, frames).tolist()
        return
    for i, index in enumerate(indices.tolist()):
        assert i * count // frames <= index <= (i + 1) * count // frames - 1


@given(COUNTS, FRAMES)
def test_centred_is_the_middle_of_each_part(count, frames):
    for i, index in enumerate(centred(count, frames).tolist()):
        middle = (i + 0.5) * count / frames
        assert index <= middle + 1e-9
        assert index > middle - 1 - 1e-9


@pytest.mark.parametrize(("count", "frames"), [(16, 16), (33, 16), (847, 16), (5, 1)])
def test_every_frame_of_a_segment_can_be_drawn_and_no_other(count, frames):
    rng = np.random.default_rng(0)
    drawn = np.stack([one_per_segment(count, frames, rng) for _ in range(2000)])
    for i in range(frames):
        assert set(drawn[:, i].tolist()) == set(range(i * count // frames, (i + 1) * count // frames))


def test_a_clip_as_long_as_the_sample_is_shown_frame_by_frame():
    assert centred(16, 16).tolist() == list(range(16))
    assert one_per_segment(16, 16, np.random.default_rng(3)).tolist() == list(range(16))
