"""Which clips make a batch, on each of several devices."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from torch.utils.data import Sampler

from dfer_zoo.errors import InputError


class ClipBatches(Sampler):
    """Yield batches of (view, index) pairs: a device's part of every global batch.

    The view seeds what is random about a clip: it is the epoch, and for a clip that is drawn again in an epoch another
    number, so that its repetitions differ.

    The clips of an epoch are cut into ``ceil(n / batch_size)`` global batches whose sizes differ by at most one: none
    is left out and no batch is a small remainder. There are fewer batches where a device would get no clip of one. In
    training each device gets equally many clips of a global batch (what does not divide is left to the next epoch); in
    evaluation every clip goes to exactly one device.

    Args:
        labels: ``(n,)`` ids of the clips.
        batch_size: size of a global batch, in clips.
        training: shuffle anew each epoch.
        seed: of the shuffling.
        balanced: draw with replacement so that each class present is equally likely (training only).
        rank: this device's number.
        devices: number of devices.

    Attributes:
        resume: the epoch that the next iteration is of, and how many of its batches an interrupted run has seen. The
            Trainer names an epoch too late: the loader's processes have begun with the first batches by then.

    Raises:
        InputError: fewer clips than devices.
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch_size: int,
        training: bool = False,
        seed: int = 0,
        balanced: bool = False,
        rank: int = 0,
        devices: int = 1,
    ) -> None:
        if len(labels) < devices:
            raise InputError(f"{len(labels)} clips cannot be shared by {devices} devices. Use fewer devices.")
        self.labels = labels
        self.batches = min(-(-len(labels) // batch_size), len(labels) // devices)
        self.training = training
        self.seed = seed
        self.balanced = balanced
        self.rank = rank
        self.devices = devices
        self.epoch = 0
        self.resume: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle; called by the Trainer before each epoch."""
        self.epoch = epoch

    def order(self) -> np.ndarray:
        """Return the clips of the current epoch in the order in which they are seen, by all devices together."""
        count = len(self.labels)
        if not self.training:
            return np.arange(count)
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.balanced:
            weight = 1 / np.bincount(self.labels)[self.labels]
            return rng.choice(count, count, p=weight / weight.sum())
        return rng.permutation(count)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        done = 0
        if self.resume is not None:
            (self.epoch, done), self.resume = self.resume, None
        order = self.order()
        repetition = pd.Series(order).groupby(order).cumcount().to_numpy()
        views = self.epoch + 2**32 * repetition
        for batch in np.array_split(np.arange(len(order)), self.batches)[done:]:
            if self.training:
                batch = batch[: len(batch) // self.devices * self.devices]
            yield [(int(views[place]), int(order[place])) for place in batch[self.rank :: self.devices]]
