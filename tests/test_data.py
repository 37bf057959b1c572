"""What every dataset shares: the validation split, the batches, reproducible randomness, the loaders."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import content
from hypothesis import assume, given
from hypothesis import strategies as st

from dfer_zoo.data import DFEW
from dfer_zoo.data.base import ClipDataset, split_validation
from dfer_zoo.data.batches import ClipBatches
from dfer_zoo.errors import DataError, InputError

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=200)
SEEDS = st.integers(0, 2**32 - 1)


def clip_table(labels: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"name": [f"{i:05d}" for i in range(len(labels))], "label": labels})


def indices(batches: ClipBatches) -> list[list[int]]:
    return [[index for _, index in batch] for batch in batches]


@given(LABELS, st.floats(0.01, 0.99), SEEDS)
def test_validation_clips_are_a_share_of_every_class(labels, fraction, seed):
    table = clip_table(labels)
    train, val = split_validation(table, fraction, seed)
    assert sorted([*train["name"], *val["name"]]) == table["name"].tolist()
    assert pd.concat([train, val]).sort_values("name", ignore_index=True).equals(table)
    for label, count in table["label"].value_counts().items():
        held_out = (val["label"] == label).sum()
        assert abs(held_out - fraction * count) <= 1
        if count > 1:
            assert 1 <= held_out < count, "every class is in both parts"


@given(LABELS, SEEDS, st.randoms())
def test_validation_clips_do_not_depend_on_the_order_of_rows(labels, seed, random):
    table = clip_table(labels)
    order = list(range(len(labels)))
    random.shuffle(order)
    for part, shuffled in zip(
        split_validation(table, 0.2, seed), split_validation(table.iloc[order], 0.2, seed), strict=True
    ):
        assert part.equals(shuffled)


def test_validation_clips_depend_on_the_seed():
    table = clip_table([0, 1] * 50)
    chosen = {tuple(split_validation(table, 0.1, seed)[1]["name"]) for seed in range(5)}
    assert len(chosen) == 5


@given(st.integers(1, 300), st.integers(1, 80), st.integers(1, 9))
def test_evaluation_sees_every_clip_exactly_once_on_any_number_of_devices(count, batch_size, devices):
    assume(count >= devices)
    shares = [indices(ClipBatches(np.zeros(count, int), batch_size, rank=r, devices=devices)) for r in range(devices)]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(count))
    assert len({len(share) for share in shares}) == 1, "every device takes equally many steps"
    assert all(batch for share in shares for batch in share)
    sizes = [sum(map(len, batches)) for batches in zip(*shares, strict=True)]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(batch_size, 2 * devices - 1)


@given(st.integers(1, 300), st.integers(1, 80), st.integers(1, 9), st.integers(0, 3), st.booleans())
def test_training_shares_are_equal_and_disjoint(count, batch_size, devices, epoch, balanced):
    assume(count >= devices)
    labels = np.arange(count) % 7
    shares = []
    for rank in range(devices):
        batches = ClipBatches(labels, batch_size, training=True, balanced=balanced, rank=rank, devices=devices)
        batches.set_epoch(epoch)
        shares.append(list(batches))
        assert len(shares[-1]) == len(batches)
    for parts in zip(*shares, strict=True):
        assert len({len(part) for part in parts}) == 1
        assert len(parts[0]) >= 1
        assert {view % 2**32 for part in parts for view, _ in part} == {epoch}
    everything = [pair for share in shares for batch in share for pair in batch]
    assert len(everything) == len(set(everything))
    if not balanced:
        seen = [index for share in shares for batch in share for _, index in batch]
        assert len(seen) == len(set(seen))
        assert count - len(seen) <= (devices - 1) * len(shares[0])


@given(st.integers(8, 300), st.integers(1, 20), st.integers(1, 4), SEEDS)
def test_global_batches_are_the_same_on_any_number_of_devices(count, share, devices, seed):
    batch_size = 2 * devices * share
    labels = np.zeros(count, int)
    alone = indices(ClipBatches(labels, batch_size, training=True, seed=seed))
    shares = [
        indices(ClipBatches(labels, batch_size, training=True, seed=seed, rank=rank, devices=devices))
        for rank in range(devices)
    ]
    together = [set().union(*parts) for parts in zip(*shares, strict=True)]
    assert together == [set(batch[: len(batch) // devices * devices]) for batch in alone]


def test_epochs_and_seeds_shuffle_anew():
    def order(epoch: int, seed: int) -> tuple[int, ...]:
        batches = ClipBatches(np.zeros(50, int), 8, training=True, seed=seed)
        batches.set_epoch(epoch)
        return tuple(batches.order())

    assert len({order(epoch, seed) for epoch in range(3) for seed in range(3)}) == 9
    assert order(2, 1) == order(2, 1)
    assert sorted(order(2, 1)) == list(range(50))


def test_balanced_draws_make_classes_equally_likely():
    labels = np.repeat([0, 2, 5], [800, 190, 10])
    drawn = []
    for epoch in range(20):
        batches = ClipBatches(labels, 64, training=True, balanced=True)
        batches.set_epoch(epoch)
        drawn += [labels[index] for batch in indices(batches) for index in batch]
    share = np.bincount(drawn, minlength=7) / len(drawn)
    assert len(drawn) == 20_000
    assert share[[0, 2, 5]] == pytest.approx([1 / 3] * 3, abs=0.02)
    assert share.sum() == pytest.approx(share[[0, 2, 5]].sum())


def test_fewer_clips_than_devices():
    with pytest.raises(InputError, match="3 clips cannot be shared by 4 devices"):
        ClipBatches(np.zeros(3, int), 8, devices=4)


@pytest.fixture(scope="module")
def data(dfew_root) -> DFEW:
    return DFEW(str(dfew_root), frames=4, size=24, batch_size=6, workers=0, seed=5)


def by_name(loader, epoch: int) -> dict[str, torch.Tensor]:
    loader.sampler.set_epoch(epoch)
    return {name: video for batch in loader for name, video in zip(batch.name, batch.video, strict=True)}


def test_a_batch_is_what_the_nets_take(data):
    batch = next(iter(data.train_dataloader()))
    assert batch.video.shape == (len(batch.name), 3, 4, 24, 24)
    assert batch.video.dtype == torch.uint8
    assert batch.video.is_contiguous(memory_format=torch.channels_last_3d)
    assert batch.label.dtype == torch.int64
    assert batch.label.tolist() == [(int(name) - 1) % 7 for name in batch.name]


def test_an_epoch_holds_every_clip_once(data):
    for split, count in (("train", 49), ("val", 7), ("test", 14)):
        batches = list(data.loader(split))
        assert len(batches) == len(data.loader(split))
        assert sorted(name for batch in batches for name in batch.name) == sorted(data.clips(split)["name"])
        assert sum(len(batch.name) for batch in batches) == count
        assert max(len(batch.name) for batch in batches) - min(len(batch.name) for batch in batches) <= 1


def test_clips_do_not_depend_on_workers_or_batches(data, dfew_root):
    """What a clip looks like is a function of seed, epoch and name."""
    expected = by_name(data.train_dataloader(), 3)
    options = {"frames": 4, "size": 24, "seed": 5}
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (9, 9), 2)  # starts threads, for which no worker may wait
    parallel = by_name(DFEW(str(dfew_root), workers=2, batch_size=6, **options).train_dataloader(), 3)
    regrouped = by_name(DFEW(str(dfew_root), workers=0, batch_size=11, **options).train_dataloader(), 3)
    assert parallel.keys() == regrouped.keys() == expected.keys()
    for name, video in expected.items():
        assert torch.equal(parallel[name], video)
        assert torch.equal(regrouped[name], video)


def test_clips_do_not_depend_on_their_place_in_the_table(data):
    whole = data.dataset("train")
    part = ClipDataset(data.clips("train").iloc[40:30:-1], 4, data.augmentation, random_frames=True, seed=5)
    for index, name in enumerate(part.names):
        assert (part.clip(index, view=2) == whole.clip(whole.names.index(name), view=2)).all()


def test_workers_see_the_epoch(data, dfew_root):
    loader = DFEW(str(dfew_root), frames=4, size=24, batch_size=6, workers=1, seed=5).train_dataloader()
    first, second, again = by_name(loader, 0), by_name(loader, 1), by_name(loader, 0)
    changed = [name for name in first if not torch.equal(first[name], second[name])]
    assert len(changed) > 40
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_training_clips_change_with_the_seed_and_evaluation_clips_never(data, dfew_root):
    other = DFEW(str(dfew_root), frames=4, size=24, batch_size=6, workers=0, seed=6)
    assert data.clips("val")["name"].tolist() == other.clips("val")["name"].tolist(), "the split has its own seed"
    train, val = data.dataset("train"), data.dataset("val")
    assert sum((train.clip(i) != other.dataset("train").clip(i)).any() for i in range(49)) > 40
    for index in range(7):
        assert (val.clip(index, view=0) == val.clip(index, view=9)).all()
        assert (val.clip(index) == other.dataset("val").clip(index)).all()


def test_training_shows_other_frames_each_epoch_in_order_of_time(dfew_root):
    data = DFEW(str(dfew_root), frames=4, size=24, jitter=0, hue=0)
    dataset = data.dataset("train")
    seen = {tuple(content(dataset.clip(0, epoch))[1]) for epoch in range(12)}
    assert len(seen) > 3
    for times in seen:
        assert [time // 3 for time in times] == [0, 1, 2, 3]


def test_two_devices_share_the_test_clips(dfew_root):
    names = []
    for rank in range(2):
        data = DFEW(str(dfew_root), frames=2, size=24, batch_size=4, workers=0)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        names += [name for batch in data.test_dataloader() for name in batch.name]
    assert sorted(names) == sorted(data.clips("test")["name"])


def test_class_counts_are_those_of_the_training_part(data):
    assert data.class_counts == [7] * 7


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("frames", 0),
        ("size", 15),
        ("batch_size", 0),
        ("val_fraction", 0.0),
        ("val_fraction", 1.0),
        ("crop_scale", (0.9, 0.5)),
        ("crop_scale", (0.0, 1.0)),
        ("flip", 1.5),
        ("jitter", -0.1),
        ("hue", 0.6),
        ("workers", -1),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(InputError, match=rf"data\.{option} is .*; allowed: "):
        DFEW(**{option: value})


def test_shuffled_frames_are_the_same_frames_in_another_order(dfew_root):
    in_order = DFEW(dfew_root, frames=8, size=24).dataset("test").clip(0)
    data = DFEW(dfew_root, frames=8, size=24, shuffle_frames=True)
    shuffled = data.dataset("test").clip(0)
    assert sorted(frame.tobytes() for frame in shuffled) == sorted(frame.tobytes() for frame in in_order)
    assert (shuffled != in_order).any()
    assert data.dataset("train").corruption is None


def test_a_clip_drawn_again_looks_different(dfew_root):
    labels = np.array([0] * 30 + [1])
    batches = ClipBatches(labels, 31, training=True, balanced=True)
    (batch,) = list(batches)
    views = [view for view, index in batch if index == 30]
    assert len(views) > 2
    assert len(set(views)) == len(views)


def damage(root: Path, names: list[str]) -> None:
    """Make the frames of DFEW's clips unreadable."""
    for name in names:
        for frame in (root / "Clip" / "clip_224x224" / name).iterdir():
            frame.write_bytes(b"no picture")


def test_a_damaged_training_clip_stops_or_is_left_out(own_dfew: Path) -> None:
    names = DFEW(own_dfew).clips("train")["name"].tolist()
    damage(own_dfew, names[:1])
    batch = [(0, 0), (0, 1), (0, 2)]
    with pytest.raises(DataError, match="is not a readable image"):
        DFEW(own_dfew, size=16).dataset("train")[batch]
    mended = DFEW(own_dfew, size=16, on_error="skip").dataset("train")[batch]
    whole = DFEW(own_dfew, size=16).dataset("train")[batch[1:]]
    assert mended.name == [names[1], names[2], names[1]]
    assert torch.equal(mended.video, whole.video[[0, 1, 0]])
    assert torch.equal(mended.label, whole.label[[0, 1, 0]])
    assert list(mended.left_out) == names[:1]
    assert "is not a readable image" in mended.left_out[names[0]]
    assert whole.left_out == {}


def test_a_batch_without_a_readable_clip_stops_even_then(own_dfew: Path) -> None:
    names = DFEW(own_dfew).clips("train")["name"].tolist()
    damage(own_dfew, names[:2])
    with pytest.raises(DataError, match="None of the 2 clips"):
        DFEW(own_dfew, size=16, on_error="skip").dataset("train")[[(0, 0), (0, 1)]]


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_evaluated_clip_is_never_left_out(split: str, own_dfew: Path) -> None:
    data = DFEW(own_dfew, size=16, on_error="skip")
    damage(own_dfew, data.clips(split)["name"].tolist()[:1])
    with pytest.raises(DataError, match="is not a readable image"):
        data.dataset(split)[[(0, 0)]]


def test_missing_training_clips_are_left_out_up_to_a_share(own_dfew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = DFEW(own_dfew)
    first = before.clips("train")["name"].iloc[0]
    shutil.rmtree(own_dfew / "Clip" / "clip_224x224" / first)
    with pytest.raises(DataError, match=f"missing or have no frames: {first}"):
        DFEW(own_dfew, on_error="skip").clips("train")  # 2 %
    monkeypatch.setattr("dfer_zoo.data.base.MOST_LEFT_OUT", 0.03)
    with pytest.raises(DataError, match="missing"):
        DFEW(own_dfew).clips("train")
    data = DFEW(own_dfew, on_error="skip")
    assert data.clips("train")["name"].tolist() == before.clips("train")["name"].tolist()[1:]
    assert data.clips("val")["name"].tolist() == before.clips("val")["name"].tolist()
    assert data.missing == {first: "missing or without frames"}


def test_training_on_test_clips_is_refused(own_dfew: Path) -> None:
    train, test = (
        own_dfew / "EmoLabel_DataSplit" / f"{part}(single-labeled)" / "set_1.csv" for part in ("train", "test")
    )
    train.write_text(train.read_text() + test.read_text().splitlines()[1] + "\n")
    data = DFEW(own_dfew)
    with pytest.raises(DataError, match=r"1 test clips under .* are training clips too, first '0"):
        data.setup("fit")
    data.setup("test")


def test_a_class_without_training_clips_is_said(own_dfew: Path) -> None:
    train = own_dfew / "EmoLabel_DataSplit" / "train(single-labeled)" / "set_1.csv"
    train.write_text("".join(line for line in train.read_text().splitlines(True) if not line.endswith(",3\n")))
    with pytest.warns(UserWarning, match="No training clip under .* shows Neutral"):
        DFEW(own_dfew).setup("fit")
