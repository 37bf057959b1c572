"""Augmentation of a whole batch on the device: the loader's own, but for rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from dfer_zoo.data import DFEW
from dfer_zoo.data.device import CLIPS_AT_ONCE, Maps, augment, maps_of, resampling
from dfer_zoo.data.pack import pack
from dfer_zoo.data.transforms import Augmentation
from dfer_zoo.errors import InputError
from dfer_zoo.models import Baseline
from dfer_zoo.runs import quiet_trainer


@pytest.fixture(scope="module")
def packed(tmp_path_factory, dfew_root):
    """A packed store of pixels."""
    return pack("dfew", str(dfew_root), str(tmp_path_factory.mktemp("packed") / "dfew"), workers=1)


@settings(deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 40))
def test_resampling_is_torch_s_antialiased_resize(draw, side, size):
    start = draw.draw(st.integers(0, side - 1))
    stop = draw.draw(st.integers(start + 1, side))
    line = torch.randn(1, 1, 1, side, dtype=torch.float64, generator=torch.Generator().manual_seed(side))
    expected = interpolate(line[..., start:stop], (1, size), mode="bilinear", antialias=True).flatten()
    weights = resampling(start, stop, side, size)
    assert weights.shape == (size, side)
    assert np.allclose(weights @ line.flatten().numpy(), expected, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(16, 40), st.integers(16, 40))
def test_the_device_does_what_the_loader_does(seed, height, width):
    frames = np.random.default_rng(seed).integers(0, 256, (2, 3, height, width, 3), dtype=np.uint8)
    augmentation = Augmentation(20)
    expected = [augmentation(list(clip), np.random.default_rng((seed, i))) for i, clip in enumerate(frames)]
    draws = [augmentation.draw(clip[0], np.random.default_rng((seed, i))) for i, clip in enumerate(frames)]
    video = augment(torch.from_numpy(frames).permute(0, 4, 1, 2, 3), maps_of(draws, height, width, 20))
    assert video.dtype == torch.uint8
    assert video.is_contiguous(memory_format=torch.channels_last_3d)
    difference = video.permute(0, 2, 3, 4, 1).numpy().astype(int) - np.stack(expected)
    assert np.abs(difference).max() <= 4  # the loader rounds twice, and contrast and saturation magnify the first
    assert np.abs(difference).mean() < 0.5


class LargestFloats(TorchDispatchMode):
    """Notes the size of the largest tensor of floats that is made."""

    size = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        if isinstance(made, torch.Tensor) and made.is_floating_point():
            self.size = max(self.size, made.numel())
        return made


def test_a_large_batch_takes_no_more_floats_than_a_few_clips():
    frames = np.random.default_rng(0).integers(0, 256, (CLIPS_AT_ONCE + 3, 2, 24, 24, 3), dtype=np.uint8)
    video = torch.from_numpy(frames).permute(0, 4, 1, 2, 3)
    augmentation = Augmentation(20)
    maps = maps_of([augmentation.draw(clip[0], np.random.default_rng(i)) for i, clip in enumerate(frames)], 24, 24, 20)
    with LargestFloats() as largest:
        augmented = augment(video, maps)
    assert largest.size == video[:CLIPS_AT_ONCE].numel()
    alone = [augment(video[i : i + 1], Maps(*(part[i : i + 1] for part in maps))) for i in range(len(video))]
    assert (augmented.int() - torch.cat(alone).int()).abs().max() <= 1  # products of matrices round by their number


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_train_are_the_same_on_either(packed, workers):
    def batches(augment_on: str) -> list:
        data = DFEW(str(packed), frames=3, size=24, batch_size=16, workers=workers, augment_on=augment_on)
        loaded = list(data.loader("train"))
        assert all((batch.maps is None) == (augment_on == "loader") for batch in loaded)
        moved = [data.transfer_batch_to_device(batch, torch.device("cpu"), 0) for batch in loaded]
        return [data.on_after_batch_transfer(batch, 0) for batch in moved]

    for ours, theirs in zip(batches("device"), batches("loader"), strict=True):
        assert ours.name == theirs.name
        assert ours.maps is None
        assert ours.video.shape == theirs.video.shape
        assert (ours.video.int() - theirs.video.int()).abs().max() <= 4


def test_a_training_with_augmentation_on_the_device_runs_and_evaluates_as_ever(packed):
    data = DFEW(str(packed), frames=3, size=24, batch_size=16, workers=0, augment_on="device")
    model = Baseline("r3d_18", pretrained=False, width=8, warmup_epochs=0)
    trainer = quiet_trainer(accelerator="cpu", max_steps=2, limit_val_batches=1)
    trainer.fit(model, data)
    assert trainer.global_step == 2
    assert next(iter(data.loader("val"))).maps is None


def test_what_the_device_cannot_do_is_refused(dfew_root, packed):
    with pytest.raises(InputError, match="allowed: affine, with"):
        DFEW(str(packed), color="exact", augment_on="device")
    with pytest.raises(InputError, match="takes a packed store of pixels"):
        DFEW(str(dfew_root), augment_on="device").setup("fit")
