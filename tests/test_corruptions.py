"""Corruptions of clips, against what their names promise."""

from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfer_zoo.data import DFEW
from dfer_zoo.data.base import ClipDataset
from dfer_zoo.data.corruptions import KINDS, SIDE, Corruption
from dfer_zoo.data.transforms import Evaluation

EVERY = [(kind, level) for kind in KINDS for level in KINDS[kind].levels]
IN_TIME = [kind for kind in KINDS if KINDS[kind].in_time]


def face_like(frames: int = 8, size: int = 48, seed: int = 0) -> np.ndarray:
    """Smooth moving shapes with a few edges: ``(T, size, size, 3)`` uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(256, size=(frames, 8, 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_CUBIC) for frame in coarse])


def order(corruption: Corruption, frames: int, name: str = "clip") -> list[int]:
    return list(corruption(range(frames), name))


def corrupt(kind: str, level: float, clip: np.ndarray, seed: int = 0) -> np.ndarray:
    """Corrupt a clip at its own size."""
    return KINDS[kind].apply(clip, level, np.random.default_rng(seed))


def difference(clip: np.ndarray, corrupted: np.ndarray) -> float:
    return float(np.abs(clip.astype(float) - corrupted).mean())


@given(
    kind_level=st.sampled_from(EVERY),
    frames=st.integers(1, 17),
    size=st.integers(16, 60),
    name=st.text(max_size=8),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_a_clip_stays_a_clip_and_comes_out_the_same_every_time(
    kind_level: tuple[str, float], frames: int, size: int, name: str, seed: int
) -> None:
    clip = face_like(frames, size)
    given_clip = clip.copy()
    corruption = Corruption(*kind_level, seed)
    corrupted = np.stack(corruption(clip, name))
    assert corrupted.shape == (clip.shape if KINDS[kind_level[0]].in_time else (frames, SIDE, SIDE, 3))
    assert corrupted.dtype == np.uint8
    assert np.array_equal(clip, given_clip), "the given clip is left alone"
    assert np.array_equal(corrupted, Corruption(*kind_level, seed)(clip, name))


@pytest.mark.parametrize("size", [48, 112])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].in_time])
def test_each_strength_changes_more_pixels_than_the_one_before(kind: str, size: int) -> None:
    clip = face_like(size=size)
    lost = [difference(clip, corrupt(kind, level, clip)) for level in KINDS[kind].levels]
    assert lost[0] > 0.2
    assert lost == sorted(lost)
    assert lost[-1] > 2 * lost[0]


@pytest.mark.parametrize("kind", ["noise", "occlusion", "drop", "shuffle"])
def test_what_is_random_differs_between_clips_and_seeds(kind: str) -> None:
    clip, level = face_like(16, 16), KINDS[kind].levels[2]
    versions = {np.stack(Corruption(kind, level, seed)(clip, name)).tobytes() for seed in (0, 1) for name in ("a", "b")}
    assert len(versions) == 4


@given(kind=st.sampled_from(IN_TIME), frames=st.integers(1, 32), strength=st.integers(1, 5), name=st.text(max_size=4))
@settings(max_examples=80, deadline=None)
def test_corruptions_of_time_only_pick_frames(kind: str, frames: int, strength: int, name: str) -> None:
    levels = KINDS[kind].levels
    corruption = Corruption(kind, levels[min(strength, len(levels)) - 1])
    found = order(corruption, frames, name)
    assert set(found) <= set(range(frames))
    clip = face_like(frames, 16)
    assert np.array_equal(corruption(clip, name), clip[found]), "the choice depends on no pixel"


@given(frames=st.integers(1, 32), share=st.floats(0, 1), name=st.text(max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_lost_frame_shows_the_last_one_that_arrived(frames: int, share: float, name: str) -> None:
    found = order(Corruption("drop", share), frames, name)
    arrived = [place for place, frame in enumerate(found) if place == frame]
    assert len(arrived) == frames - round(share * (frames - 1))
    expected, last = [], 0
    for place in range(frames):
        last = place if place in arrived else last
        expected.append(last)
    assert found == expected
    assert arrived[0] == 0


@given(frames=st.integers(2, 32), share=st.floats(0.1, 1), name=st.text(max_size=4))
@settings(max_examples=60, deadline=None)
def test_frames_are_shuffled_within_their_window(frames: int, share: float, name: str) -> None:
    found = order(Corruption("shuffle", share), frames, name)
    window = max(round(share * frames), 2)
    assert sorted(found) == list(range(frames))
    assert [frame // window for frame in found] == [place // window for place in range(frames)]


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (-1, [7, 6, 5, 4, 3, 2, 1, 0]),
        (0.5, [2, 2, 3, 3, 4, 4, 5, 5]),
        (2, [0, 0, 1, 3, 5, 7, 7, 7]),
        (1, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_speed_is_about_the_middle(factor: float, expected: list[int]) -> None:
    found = order(Corruption("fast", factor), 8)
    assert found == expected


def test_darkness_is_a_factor_of_the_light() -> None:
    clip = np.full((1, 16, 16, 3), 188, np.uint8)  # sRGB's 188 is half of the light of 255
    assert corrupt("darkness", 0.5, np.full_like(clip, 255))[0, 0, 0, 0] == 188
    assert corrupt("darkness", 0.25, clip)[0, 0, 0, 0] == pytest.approx(99, abs=1)  # an eighth
    assert np.array_equal(corrupt("darkness", 1.0, face_like()), face_like())


@given(area=st.floats(0.02, 0.9), size=st.integers(32, 120), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_the_occluded_share_is_as_asked_and_in_one_place(area: float, size: int, seed: int) -> None:
    clip = np.zeros((3, size, size, 3), np.uint8)
    covered = (corrupt("occlusion", area, clip, seed) == 128).all(-1)
    assert (covered == covered[0]).all()
    assert covered[0].mean() == pytest.approx(area, abs=2.5 / size)


def test_noise_has_the_standard_deviation_asked_for() -> None:
    clip = np.full((8, 48, 48, 3), 128, np.uint8)
    noise = corrupt("noise", 0.1, clip).astype(float) - 128
    assert noise.std() == pytest.approx(25.5, rel=0.02)
    assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("size", [48, 112])
def test_blur_scales_with_the_frame(size: int) -> None:
    """A white point spreads to a Gaussian whose standard deviation is the share of the side asked for."""
    clip = np.zeros((1, size, size, 3), np.uint8)
    clip[0, size // 2, :] = 255
    profile = corrupt("blur", 0.04, clip)[0, :, size // 2, 0].astype(float)
    place = np.arange(size) - size // 2
    spread = np.sqrt((profile * place**2).sum() / profile.sum())
    assert spread == pytest.approx(0.04 * size, rel=0.1)


def test_a_dataset_corrupts_what_it_evaluates_and_not_what_it_trains_on(dfew_root) -> None:
    data = DFEW(dfew_root, frames=8, size=24)
    (frames, _), training = data.dataset("test").read(0), data.dataset("train").clip(0)
    data.corruption = Corruption("noise", 0.2, seed=3)
    dataset = data.dataset("test")
    assert np.array_equal(dataset.clip(0), Evaluation(24)(data.corruption(frames, dataset.names[0])))
    batch = dataset[[(0, 1), (0, 0)]]  # whatever the batch
    assert np.array_equal(batch.video[1].permute(1, 2, 3, 0).numpy(), dataset.clip(0))
    assert np.array_equal(data.dataset("train").clip(0), training)


@pytest.mark.parametrize("kind", KINDS)
def test_nets_of_every_size_see_the_same_corrupted_clip(kind: str) -> None:
    film = SimpleNamespace(read=lambda choose: list(face_like(size=224)[choose(8)]))
    clips = pd.DataFrame({"name": ["clip"], "label": 0, "source": [film]})

    def seen(size: int, corruption: Corruption | None) -> np.ndarray:
        return Evaluation(40)(ClipDataset(clips, 8, Evaluation(size), corruption=corruption).clip(0)).astype(float)

    corruption = Corruption(kind, KINDS[kind].levels[min(2, len(KINDS[kind].levels) - 1)])
    clean, corrupted = ([seen(size, given) for size in (112, 160)] for given in (None, corruption))
    resize = difference(*clean)  # what the size alone changes
    assert difference(*corrupted) < 2 * resize + 1
    assert difference(clean[0], corrupted[0]) == pytest.approx(difference(clean[1], corrupted[1]), rel=0.1, abs=0.5)
