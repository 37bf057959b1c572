"""A finished run with its chosen checkpoint and its clips: what the figures of a model's inside are computed from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dfer_zoo.errors import CheckpointError, InputError
from dfer_zoo.results import Run, softmax
from dfer_zoo.runs import BEST, load_data

if TYPE_CHECKING:
    import torch

    from dfer_zoo.data import DFERData
    from dfer_zoo.data.base import Batch, ClipDataset
    from dfer_zoo.models import DFERModel

Track = Callable[[Sequence, str], Iterable]
"""Yields the items of a sequence and shows how many are done, under a name."""


def untracked(items: Sequence, description: str) -> Iterable:
    """Yield the items and show nothing."""
    return items


@dataclass(frozen=True)
class Trained:
    """A run's chosen checkpoint, in evaluation mode, and the data it was trained and tested on.

    Args:
        run: the run.
        model: its chosen checkpoint.
        data: its data.
    """

    run: Run
    model: "DFERModel"
    data: "DFERData"

    @classmethod
    def load(cls, run: Run) -> "Trained":
        """Load a finished run, onto the graphics card where there is one.

        Raises:
            CheckpointError: no checkpoint, or one that cannot be used.
            DataError: the data is not where it was.
            InputError: other clips are there than the run was tested on.
        """
        import torch

        from dfer_zoo.models import load

        checkpoint = run.path / "checkpoints" / f"{BEST}.ckpt"
        if not checkpoint.is_file():
            raise CheckpointError(f"{run.path} has no checkpoint {checkpoint.relative_to(run.path)}: train it again.")
        data = load_data(run.path)
        if not set(run.predictions["clip"]) <= set(data.clips("test")["name"]):
            raise InputError(f"The test clips under {data.root} are not those that {run.path} was tested on.")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(run, load(checkpoint).to(device), data)

    def batch(self, dataset: "ClipDataset", names: Sequence[str]) -> "Batch":
        """Return clips of a dataset by name, as one batch on the model's device."""
        places = {name: place for place, name in enumerate(dataset.names)}
        batch = dataset[[(0, places[name]) for name in names]]
        return batch._replace(video=batch.video.to(self.model.device), label=batch.label.to(self.model.device))

    def batches(self, names: Sequence[str]) -> list[list[str]]:
        """Cut names of clips into batches of the size that the run was trained with."""
        return [list(names[i : i + self.data.batch_size]) for i in range(0, len(names), self.data.batch_size)]

    def over(
        self, names: Sequence[str], compute: "Callable[[torch.Tensor], torch.Tensor]", track: Track, what: str
    ) -> np.ndarray:
        """Return what `compute` makes of normalised batches of these test clips, one row a clip, without gradients."""
        import torch

        dataset = self.data.dataset("test")
        found = []
        with torch.inference_mode():
            for part in track(self.batches(names), f"{what} of {self.run.name}"):
                found.append(compute(self.model.normalize(self.batch(dataset, part).video)).float().cpu())
        return torch.cat(found).numpy()


def median_clips(run: Run, most: int) -> list[str]:
    """Return a test clip of each class, the one with the median probability of its true class.

    So the pictures neither flatter nor blame the run.

    Args:
        run: whose predictions decide.
        most: clips returned; classes that have test clips take turns, spread evenly over their order.
    """
    table = run.predictions
    probabilities = softmax(table[run.evaluation["classes"]].to_numpy())
    present = np.unique(table["label"])
    spread = np.linspace(0, len(present) - 1, min(most, len(present))).round().astype(int)
    clips = []
    for label in present[spread]:
        rows = np.flatnonzero(table["label"] == label)
        clips.append(table["clip"][rows[np.argsort(probabilities[rows, label])[len(rows) // 2]]])
    return clips
