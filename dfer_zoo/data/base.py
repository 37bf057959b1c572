"""What every dataset shares: clips to batches, the validation split, the loaders."""

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dfer_zoo.data import sampling
from dfer_zoo.data.batches import ClipBatches
from dfer_zoo.data.corruptions import Corruption
from dfer_zoo.data.device import Maps, augment, maps_of
from dfer_zoo.data.reading import FrameFolder, VideoFile
from dfer_zoo.data.store import PackedClip, Store, is_packed
from dfer_zoo.data.transforms import Augmentation, Draw, Evaluation
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.processes import leave_signals

Split = Literal["train", "val", "test", "predict"]

Source = FrameFolder | VideoFile | PackedClip
"""Where a clip's frames are; its ``read`` decodes the chosen ones."""

MOST_LEFT_OUT = 0.01
"""Share of the training clips that ``on_error: skip`` may leave out."""


class Batch(NamedTuple):
    """What a loader yields and `DFERModel.losses` takes."""

    video: Tensor
    """``(B, 3, T, H, W)`` uint8 RGB, stored channels last."""
    label: Tensor
    """``(B,)`` int64, ids of `EMOTIONS`; -1 where the clip has no label."""
    name: list[str]
    """The clips' names in their dataset."""
    left_out: dict[str, str]
    """Clips that could not be read and what was wrong; another clip of the batch stands in for each."""
    maps: Maps | None = None
    """Where `video` holds whole frames: what turns them into what the net sees."""


class ClipDataset(Dataset):
    """Decode clips into batches.

    What is random about a clip (its frames, crop, flip and colours) is a function of the seed, the view and the clip's
    name alone: the number of workers, the batch it falls into and an interruption change nothing. The view is the
    epoch, but for clips drawn more than once in one (see `ClipBatches`).

    Args:
        clips: table with a column ``name``, a column ``label`` (id, or -1) and a column ``source`` of `Source`.
        frames: T, the number of frames of a clip that the net sees.
        transform: from T frames to ``(T, size, size, 3)`` uint8.
        random_frames: draw one frame a segment (training) rather than the segments' middles (evaluation).
        corruption: of the frames before `transform`.
        leave_out: let another clip of the batch stand in for one that cannot be read.
        whole_frames: leave the transform, an `Augmentation`, to the device; all frames are of one size then.
        seed: of all that is random.
    """

    def __init__(
        self,
        clips: pd.DataFrame,
        frames: int,
        transform: Augmentation | Evaluation,
        random_frames: bool = False,
        corruption: Corruption | None = None,
        leave_out: bool = False,
        whole_frames: bool = False,
        seed: int = 0,
    ) -> None:
        self.names = clips["name"].tolist()
        self.labels = clips["label"].to_numpy(np.int64)
        self.sources: list[Source] = clips["source"].tolist()
        self.frames = frames
        self.transform = transform
        self.random_frames = random_frames
        self.corruption = corruption
        self.leave_out = leave_out
        self.whole_frames = whole_frames
        self.seed = seed

    def __len__(self) -> int:
        return len(self.names)

    def generator(self, index: int, view: int = 0) -> np.random.Generator:
        """Return the source of all that is random about a view of clip `index`."""
        return np.random.default_rng((self.seed, view, zlib.crc32(self.names[index].encode())))

    def clip(self, index: int, view: int = 0) -> np.ndarray:
        """Return a view of clip `index`: ``(T, size, size, 3)`` uint8."""
        frames, rng = self.read(index, view)
        if self.corruption is not None:
            frames = self.corruption(frames, self.names[index])
        return self.transform(frames, rng)

    def read(self, index: int, view: int = 0) -> tuple[list[np.ndarray], np.random.Generator]:
        """Return the frames of a view of clip `index`, whole, and the source of all else that is random about it."""
        rng = self.generator(index, view)

        def choose(count: int) -> np.ndarray:
            if self.random_frames:
                return sampling.one_per_segment(count, self.frames, rng)
            return sampling.centred(count, self.frames)

        return self.sources[index].read(choose), rng

    def __getitem__(self, batch: Sequence[tuple[int, int]]) -> Batch:
        """Return the batch of the given (view, index) pairs, as `ClipBatches` yields them.

        Raises:
            DataError: a clip that cannot be read; with `leave_out`, a batch without a clip that can be.
        """
        clips: list[np.ndarray] = []
        draws: list[Draw] = []
        indices: list[int] = []
        left_out: dict[str, str] = {}
        for view, index in batch:
            try:
                if self.whole_frames:
                    frames, rng = self.read(index, view)
                    clips.append(np.stack(frames))
                    draws.append(self.transform.draw(frames[0], rng))
                else:
                    clips.append(self.clip(index, view))
                indices.append(index)
            except DataError as error:
                if not self.leave_out:
                    raise
                left_out[self.names[index]] = str(error)
        if not clips:
            raise DataError(f"None of the {len(batch)} clips of a batch can be read: {next(iter(left_out.values()))}")
        places = [place % len(clips) for place in range(len(batch))]  # as many on every device
        return Batch(
            torch.from_numpy(np.stack([clips[i] for i in places])).permute(0, 4, 1, 2, 3),  # channels last in memory
            torch.from_numpy(self.labels[[indices[i] for i in places]]),
            [self.names[indices[i]] for i in places],
            left_out,
            maps_of([draws[i] for i in places], *clips[0].shape[1:3], self.transform.size) if draws else None,
        )


def split_validation(clips: pd.DataFrame, fraction: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a training table into a training and a validation part, stratified by label.

    Each class gives ``round(fraction * n_c)`` clips, and where it has two or more at least one and not all. The choice
    depends on the names and the seed alone, not on the order of the rows.

    Args:
        clips: table with columns ``name`` and ``label``.
        fraction: share of the clips for validation, in (0, 1).
        seed: of the choice.

    Returns:
        The training part and the validation part, each sorted by name.
    """
    rng = np.random.default_rng(seed)
    clips = clips.sort_values("name", ignore_index=True)
    chosen: list[int] = []
    for _, rows in clips.groupby("label"):
        wanted = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        chosen.extend(rng.permutation(rows.index.to_numpy())[:wanted].tolist())
    is_val = clips.index.isin(chosen)
    return clips[~is_val].reset_index(drop=True), clips[is_val].reset_index(drop=True)


class DFERData(L.LightningDataModule):
    """Base of the datasets: a subclass says which clips a split holds.

    Args:
        root: folder of the dataset, raw or packed (`dfer_zoo.data.pack`).
        frames: T, the number of frames of a clip that the net sees.
        size: side of the frames that the net sees, in pixels.
        batch_size: clips in a global batch; divided by the number of devices.
        val_fraction: share of the training clips that is held out to choose the checkpoint.
        split_seed: seed of that choice; keep it fixed between runs that are compared.
        balanced: draw training clips so that each class is equally likely.
        crop_scale: least and greatest share of the area that a training crop keeps.
        flip: probability of a horizontal flip in training.
        jitter: strength of brightness, contrast and saturation jitter in training.
        hue: strength of hue jitter in training, in turns (at most 0.5).
        color: ``affine`` (one linear colour map a clip, fast) or ``exact`` (torchvision's operations).
        augment_on: ``loader``: its processes crop, resize, flip and jitter. ``device``: they draw what is to be done,
            and the device that trains does it to the whole batch; for GPUs that wait for the loader. It takes a packed
            store of pixels and ``color: affine``, and differs from the loader by rounding alone.
        shuffle_frames: shuffle the frames of clips at evaluation: what a model loses by it, it knew from time.
        on_error: ``raise`` stops at a training clip that is missing or damaged; ``skip`` leaves it out, lists it in the
            run's ``left_out.csv``, and stops above 1 % of the clips. Clips that are evaluated always raise.
        workers: loader processes a device.
        seed: of shuffling, frames and augmentation; the command line hands over ``seed_everything``.

    Attributes:
        test_each_epoch: score the test clips beside the validation clips after each epoch; changes no training.
    """

    label_names = EMOTIONS
    folds: tuple[int, ...] = ()
    """What ``fold`` may be, where that is the same for every root."""
    how_to_get: str
    """The next step of somebody who does not have the data."""
    label_files: tuple[str, ...]
    """Patterns of the files that `read_split` reads, relative to the root: what a packed store holds copies of."""

    def __init__(
        self,
        root: str,
        *,
        frames: int = 16,
        size: int = 112,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        balanced: bool = False,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: float = 0.5,
        jitter: float = 0.4,
        hue: float = 0.1,
        color: Literal["affine", "exact"] = "affine",
        augment_on: Literal["loader", "device"] = "loader",
        shuffle_frames: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check("frames", frames, frames >= 1, "1 or more")
        _check("size", size, size >= 16, "16 pixels or more")
        _check("batch_size", batch_size, batch_size >= 1, "1 or more")
        _check("val_fraction", val_fraction, 0 < val_fraction < 1, "more than 0 and less than 1")
        _check("crop_scale", crop_scale, 0 < crop_scale[0] <= crop_scale[1] <= 1, "two rising shares in (0, 1]")
        _check("flip", flip, 0 <= flip <= 1, "0 to 1")
        _check("jitter", jitter, jitter >= 0, "0 or more")
        _check("hue", hue, 0 <= hue <= 0.5, "0 to 0.5")
        _check("workers", workers, workers >= 0, "0 or more")
        _check("color", color, color == "affine" or augment_on == "loader", "affine, with data.augment_on device")
        self.root = Path(root)
        self.frames, self.size, self.batch_size = frames, size, batch_size
        self.val_fraction, self.split_seed, self.balanced = val_fraction, split_seed, balanced
        self.augment_on, self.on_error, self.workers, self.seed = augment_on, on_error, workers, seed
        self.corruption = Corruption("shuffle", 1.0, seed) if shuffle_frames else None
        self.augmentation = Augmentation(size, tuple(crop_scale), flip=flip, jitter=jitter, hue=hue, color=color)
        self.test_each_epoch = False
        self.tables: dict[str, pd.DataFrame] = {}
        self.missing: dict[str, str] = {}
        self.resume: tuple[int, int] | None = None

    @property
    def run_name(self) -> str:
        """What tells apart the runs of one model on this dataset, such as the fold."""
        return "all"

    @abstractmethod
    def read_split(self, split: Literal["train", "test", "predict"]) -> pd.DataFrame:
        """Return the dataset's own split as a table: ``name`` (str, unique) and ``label`` (id, -1 where unknown).

        Raises:
            DataError: the dataset is missing or not in its documented layout.
        """

    @abstractmethod
    def sources(self, names: Sequence[str]) -> list[Source | None]:
        """Return where each clip's frames are in the raw folder, or None for a clip that is missing or empty."""

    def known_folds(self) -> tuple[int, ...]:
        """Return what ``fold`` may be; nothing where the dataset has no folds."""
        return self.folds

    def locate(self, names: Sequence[str]) -> list[Source | None]:
        """Return where each clip's frames are: in the packed store if the root is one, else in the raw folder.

        Raises:
            DataError: the frames' folder is missing, or the store cannot be used.
        """
        return Store(self.root).sources(names) if is_packed(self.root) else self.sources(names)

    def clips(self, split: Split) -> pd.DataFrame:
        """Return the clips of a split: columns ``name``, ``label`` and ``source``.

        ``train`` and ``val`` are the two parts of the dataset's own training split.

        Raises:
            DataError: the dataset or some of its clips are missing.
        """
        if split not in self.tables:
            if split in ("train", "val"):
                both = self.with_sources(self.read_split("train"))
                train, val = split_validation(both, self.val_fraction, self.split_seed)
                if self.on_error == "raise":
                    self.demand(both)
                self.demand(val)
                self.demand(train, MOST_LEFT_OUT)
                missing = train["source"].isna()
                self.missing = dict.fromkeys(train["name"][missing], "missing or without frames")
                self.tables.update(train=train[~missing].reset_index(drop=True), val=val)
            else:
                self.tables[split] = self.with_sources(self.read_split(split))
                self.demand(self.tables[split])
        return self.tables[split]

    def with_sources(self, clips: pd.DataFrame) -> pd.DataFrame:
        """Add the column ``source`` to a table of clips: where their frames are, None for a missing clip.

        Raises:
            InputError: the root is a packed store of frames smaller than the net sees.
        """
        sources = self.locate(clips["name"].tolist())
        packed = next((source.store.size for source in sources if isinstance(source, PackedClip)), None)
        if packed is not None and packed < self.size:
            raise InputError(
                f"data.size is {self.size}, but {self.root} holds frames of {packed} px. Pack them with --size "
                f"{self.size} or more, or add --data.size {packed}."
            )
        return clips.assign(source=pd.Series(sources, clips.index, dtype=object))

    def demand(self, clips: pd.DataFrame, missing_share: float = 0.0) -> None:
        """Raise DataError where more than a share of the clips has no source."""
        missing = clips["name"][clips["source"].isna()].tolist()
        if len(missing) > missing_share * len(clips):
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise DataError(
                f"{len(missing)} of {len(clips)} clips under {self.root} are missing or have no frames: {shown}. "
                f"Run `dfer-zoo check {type(self).__name__.lower()} --root {self.root}` for the whole list."
            )

    @property
    def generated(self) -> bool:
        """Whether the root holds generated faces in the dataset's layout rather than the dataset."""
        return (self.root / "synthetic.json").is_file()

    @property
    def class_counts(self) -> list[int]:
        """Training clips of each class, in the order of `label_names`."""
        return np.bincount(self.clips("train")["label"], minlength=len(self.label_names)).tolist()

    def setup(self, stage: str) -> None:
        """Read the tables that `stage` needs; called by the Trainer on every process."""
        splits = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}[stage]
        for split in (*splits, "test") if stage == "fit" and self.test_each_epoch else splits:
            if self.clips(split).empty:
                raise DataError(f"The {split} split under {self.root} holds no clips.")
        if stage == "fit":
            self._check_training_clips()

    def _check_training_clips(self) -> None:
        pixels = all(
            isinstance(clip, PackedClip) and clip.store.offsets is None for clip in self.clips("train")["source"]
        )
        if self.augment_on == "device" and not pixels:
            raise InputError(
                f"data.augment_on is device, which takes a packed store of pixels; {self.root} is none. Make one with "
                "`dfer-zoo pack`, or add --data.augment_on loader."
            )
        test = set(self.read_split("test")["name"])
        seen = [name for split in ("train", "val") for name in self.clips(split)["name"] if name in test]
        if seen:
            raise DataError(
                f"{len(seen)} test clips under {self.root} are training clips too, first {seen[0]!r}. Take them out of "
                "one of the two lists; `dfer-zoo check` shows more."
            )
        absent = [name for name, count in zip(self.label_names, self.class_counts, strict=True) if count == 0]
        if absent:
            rank_zero_warn(f"No training clip under {self.root} shows {', '.join(absent)}: the model cannot learn it.")

    def dataset(self, split: Split) -> ClipDataset:
        """Return the clips of a split, decoded: augmented for ``train``, deterministic otherwise."""
        training = split == "train"
        transform = self.augmentation if training else Evaluation(self.size)
        return ClipDataset(
            self.clips(split),
            self.frames,
            transform,
            random_frames=training,
            corruption=None if training else self.corruption,
            leave_out=training and self.on_error == "skip",
            whole_frames=training and self.augment_on == "device",
            seed=self.seed,
        )

    def loader(self, split: Split) -> DataLoader:
        """Return the loader of a split: this process' part of every global batch."""
        dataset = self.dataset(split)
        training = split == "train"
        trainer = self.trainer
        batches = ClipBatches(
            dataset.labels,
            self.batch_size,
            training=training,
            seed=self.seed,
            balanced=training and self.balanced,
            rank=trainer.global_rank if trainer else 0,
            devices=trainer.world_size if trainer else 1,
        )
        if self.workers > 0:
            # One OpenCV thread a worker, as of torch's. Said here, since a forked process that inherits the threads of
            # OpenCV waits for them forever.
            cv2.setNumThreads(1)
        return DataLoader(
            dataset,
            batch_size=None,  # the sampler yields whole batches
            sampler=batches,
            num_workers=self.workers,
            worker_init_fn=leave_signals,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the tensors; Lightning would look into every name, too."""
        maps = batch.maps and Maps(*(part.to(device, non_blocking=True) for part in batch.maps))
        video, label = (part.to(device, non_blocking=True) for part in (batch.video, batch.label))
        return batch._replace(video=video, label=label, maps=maps)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment on the device what the loader has left to it."""
        if batch.maps is None:
            return batch
        return batch._replace(video=augment(batch.video, batch.maps), maps=None)

    def train_dataloader(self) -> DataLoader:
        loader = self.loader("train")
        loader.sampler.resume, self.resume = self.resume, None
        return loader

    def state_dict(self) -> dict[str, int]:
        """Return how much of the epoch is done, so that a run interrupted within it sees the rest."""
        loop = self.trainer.fit_loop
        done = loop.epoch_loop.batch_progress.current.processed % self.trainer.num_training_batches
        return {"epoch": loop.epoch_progress.current.processed, "batches_done": done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue where a run was interrupted."""
        self.resume = state_dict["epoch"], state_dict["batches_done"]

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        if self.test_each_epoch and self.trainer.state.fn == TrainerFn.FITTING:
            return [self.loader("val"), self.loader("test")]
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader:
        return self.loader("predict")


def _check(name: str, value: object, valid: bool, allowed: str) -> None:
    if not valid:
        raise InputError(f"data.{name} is {value}; allowed: {allowed}.")
