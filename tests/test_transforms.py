"""One crop, one flip and one colour change a clip; the fast colour change close to torchvision's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as V

from dfer_zoo.data.transforms import (
    Augmentation,
    Evaluation,
    affine_color,
    centre_square,
    crop_and_resize,
    exact_color,
    hue_rotation,
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colourful picture, its values far from 0 and 255 so that mild changes are not clipped."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(0.3, 1.5, size=(3, 3))]
    return (128 + 35 * np.stack(waves, axis=-1)).astype(np.uint8)


def test_evaluation_shows_the_centred_square():
    frame = np.zeros((40, 80, 3), np.uint8)
    frame[:, 20:60] = (10, 200, 30)
    clip = Evaluation(16)([frame, frame[:, ::-1]])
    assert clip.shape == (2, 16, 16, 3)
    assert clip.dtype == np.uint8
    assert (clip == (10, 200, 30)).all()


def test_evaluation_leaves_a_frame_of_the_right_size_alone():
    frame = picture(32, 32)
    assert (Evaluation(32)([frame])[0] == frame).all()


@given(st.integers(1, 300), st.integers(1, 300))
def test_centre_square_is_square_and_centred(height, width):
    left, top, wide, high = centre_square(np.empty((height, width, 3), np.uint8))
    assert wide * width == pytest.approx(high * height)
    assert left == pytest.approx(1 - left - wide)
    assert top == pytest.approx(1 - top - high)


@settings(deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.tuples(st.floats(0.01, 1), st.floats(0.01, 1))
)
def test_any_crop_of_any_frame_has_the_size_asked_for(height, width, seed, scale):
    augmentation = Augmentation(16, crop_scale=(min(scale), max(scale)))
    box = augmentation.draw_box(width / height, np.random.default_rng(seed))
    left, top, wide, high = box
    assert 0 <= left <= left + wide <= 1 + 1e-9
    assert 0 <= top <= top + high <= 1 + 1e-9
    assert crop_and_resize([np.zeros((height, width, 3), np.uint8)], [box], 16).shape == (1, 16, 16, 3)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 2))
def test_crops_have_the_area_and_the_proportions_asked_for(seed, aspect):
    _, _, wide, high = Augmentation(16, crop_scale=(0.2, 0.35)).draw_box(aspect, np.random.default_rng(seed))
    assert 0.2 - 1e-9 <= wide * high <= 0.35 + 1e-9
    assert 3 / 4 - 1e-9 <= wide * aspect / high <= 4 / 3 + 1e-9


@pytest.mark.parametrize("color", ["affine", "exact"])
def test_augmentation_is_the_same_for_every_frame_of_a_clip(color):
    augmentation = Augmentation(24, color=color)
    for seed in range(5):
        clip = augmentation([picture(40, 40)] * 4, np.random.default_rng(seed))
        assert clip.shape == (4, 24, 24, 3)
        assert clip.dtype == np.uint8
        assert (clip == clip[:1]).all()


def test_the_colour_option_chooses_the_operation():
    """A rotation about the grey axis keeps the mean of R, G and B; a shift in HSV keeps the largest of them."""
    frame = picture(24, 24)
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0, "jitter": 0.0, "hue": 0.5}
    affine, exact = (Augmentation(24, color=c, **whole)([frame], np.random.default_rng(1)) for c in ("affine", "exact"))
    assert np.abs(affine.mean(axis=-1) - frame.mean(axis=-1)).max() <= 1
    assert np.abs(exact.max(axis=-1).astype(int) - frame.max(axis=-1)).max() <= 1
    assert np.abs(exact.mean(axis=-1) - frame.mean(axis=-1)).max() > 5


@pytest.mark.parametrize("side", [128, 160, 224])
def test_crops_are_torchvision_s(side):
    frames = [picture(side, side, seed) for seed in range(3)]
    top, left, high, wide = (round(share * side) for share in (0.1, 0.05, 0.8, 0.9))
    video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
    expected = V.resized_crop(video, top, left, high, wide, [112, 112], antialias=True).permute(0, 2, 3, 1).numpy()
    crops = crop_and_resize(frames, [(left / side, top / side, wide / side, high / side)] * 3, 112)
    assert np.abs(crops.astype(int) - expected).max() <= 1  # torch rounds by memory order


def test_crops_do_not_alias():
    stripes = np.zeros((224, 224, 3), np.uint8)
    stripes[:, ::2] = 200  # finer than 112 pixels can show
    assert np.ptp(crop_and_resize([stripes], [(0, 0, 1, 1)], 112)[0, :, 8:-8]) <= 2
    assert np.ptp(crop_and_resize([stripes], [(0, 0, 1, 1)], 80)[0, :, 8:-8]) < 60


def test_augmentation_cuts_frames_of_other_sizes_alike():
    large = picture(80, 80)
    small = crop_and_resize([large], [(0, 0, 1, 1)], 40)[0]
    for seed in range(5):
        clip = Augmentation(20, jitter=0, hue=0)([large, small], np.random.default_rng(seed)).astype(int)
        assert np.abs(clip[0] - clip[1]).mean() < 3  # of 70 levels of contrast


def test_augmentation_is_a_function_of_the_generator():
    frames = [picture(40, 40)] * 2
    first, again, other = (Augmentation(24)(frames, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_flip_mirrors_every_frame():
    frames = [picture(24, 24, seed) for seed in (0, 1)]
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "jitter": 0.0, "hue": 0.0}
    flipped = Augmentation(24, flip=1.0, **whole)(frames, np.random.default_rng(0))
    straight = Augmentation(24, flip=0.0, **whole)(frames, np.random.default_rng(0))
    assert (straight == np.stack(frames)).all()
    assert (flipped == np.stack(frames)[:, :, ::-1]).all()


@pytest.mark.parametrize("recolor", [affine_color, exact_color])
def test_identity_factors_change_nothing(recolor):
    clip = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    assert np.abs(recolor(clip, 1.0, 1.0, 1.0, 0.0).astype(int) - clip).max() <= (1 if recolor is exact_color else 0)


@pytest.mark.parametrize("recolor", [affine_color, exact_color])
def test_input_is_left_alone(recolor):
    clip = np.stack([picture(16, 16)])
    before = clip.copy()
    recolor(clip, 1.3, 0.7, 1.2, 0.1)
    assert (clip == before).all()


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ({"brightness": 0.7}, 1),
        ({"brightness": 1.2}, 1),
        ({"contrast": 0.7}, 1.5),
        ({"contrast": 1.2}, 1.5),
        ({"saturation": 0.6}, 1.5),
        ({"saturation": 1.2}, 1.5),
    ],
)
def test_affine_color_agrees_with_torchvision_on_one_linear_change(change, tolerance):
    arguments = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, **change}
    clip = np.stack([picture(32, 32)] * 2)  # equal frames: the mean of the clip is the mean of each frame
    difference = affine_color(clip, **arguments).astype(float) - exact_color(clip, **arguments)
    assert np.abs(difference).max() <= tolerance


factor = st.floats(0.5, 1.5)


@settings(max_examples=30, deadline=None)
@given(factor, factor, factor, st.floats(-0.5, 0.5), st.integers(0, 2**32 - 1))
def test_exact_color_is_torchvision_s(brightness, contrast, saturation, hue, seed):
    clip = np.random.default_rng(seed).integers(0, 256, (5, 8, 10, 3), dtype=np.uint8)
    expected = torch.from_numpy(clip).permute(0, 3, 1, 2)
    for change, value in (
        (V.adjust_brightness, brightness),
        (V.adjust_contrast, contrast),
        (V.adjust_saturation, saturation),
        (V.adjust_hue, hue),
    ):
        expected = change(expected, value)
    changed = exact_color(clip, brightness, contrast, saturation, hue)
    assert np.abs(changed.astype(int) - expected.permute(0, 2, 3, 1).numpy()).max() <= 1


@pytest.mark.parametrize("hue", [-0.1, -0.04, 0.04, 0.1])
def test_affine_hue_turns_as_torchvision_does(hue):
    clip = np.stack([picture(32, 32)])
    change = affine_color(clip, 1, 1, 1, hue).astype(float) - clip
    exact = exact_color(clip, 1, 1, 1, hue).astype(float) - clip
    cosine = (change * exact).sum() / np.linalg.norm(change) / np.linalg.norm(exact)
    assert cosine > 0.75  # HSV turns along a hexagon, the rotation along a circle
    assert 0.7 < np.linalg.norm(change) / np.linalg.norm(exact) < 1.4


@given(st.floats(-1, 1))
def test_hue_rotation_is_a_rotation_about_grey(turns):
    rotation = hue_rotation(turns)
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert np.allclose(rotation @ np.ones(3), np.ones(3))
    assert np.trace(rotation) == pytest.approx(1 + 2 * np.cos(2 * np.pi * turns))


@given(st.floats(0.5, 1.5), st.floats(0.5, 1.5), st.floats(0, 2), st.floats(-0.5, 0.5))
def test_grey_stays_grey(brightness, contrast, saturation, hue):
    clip = np.repeat(np.arange(64, 192, dtype=np.uint8).reshape(1, 8, 16, 1), 3, axis=3)
    changed = affine_color(clip, brightness, contrast, saturation, hue).astype(int)
    assert (changed.max(axis=3) - changed.min(axis=3)).max() <= 1


def test_colours_jitter_between_clips_and_not_with_zero_strength():
    frames = [np.full((24, 24, 3), (120, 90, 60), np.uint8)]
    seen = {tuple(Augmentation(16)(frames, np.random.default_rng(s))[0, 0, 0]) for s in range(8)}
    still = {tuple(Augmentation(16, jitter=0, hue=0)(frames, np.random.default_rng(s))[0, 0, 0]) for s in range(8)}
    assert len(seen) > 5
    assert still == {(120, 90, 60)}
