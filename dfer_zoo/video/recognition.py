"""A file and a model in, a table of segments out."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from dfer_zoo.errors import InputError
from dfer_zoo.results import softmax
from dfer_zoo.video.faces import Detector, load_detector
from dfer_zoo.video.footage import Footage, Progress, look_through
from dfer_zoo.video.windows import Window, clips, plan

if TYPE_CHECKING:
    from torch import Tensor

    from dfer_zoo.nets import NetOutput

WINDOW_SECONDS = {"FERV39k": 1.1}
"""Default length of a window by the dataset that a model was trained on: its median clip, 28 frames at 25 a second."""
OTHER_WINDOW_SECONDS = 2.8
"""The same for DFEW, 70 frames; and for clips of one's own, whose lengths a checkpoint does not hold."""
LEAST_WINDOW = 0.1
"""Least seconds of a window and of a stride."""
COLUMNS = ["person", "start", "end", "label", "confidence"]
"""Columns of a table of segments, before one of probabilities a class."""


class Model(Protocol):
    """What classifies clips: a `DFERModel` from `dfer_zoo.load`, or anything that acts like it."""

    spec: dict[str, Any]
    """``labels``, ``frames``, ``size``, ``model``, ``data``."""

    def __call__(self, video: "Tensor") -> "NetOutput":
        """Classify uint8 clips ``(B, 3, T, H, W)``."""
        ...


def recognize(
    video: str | Path,
    model: Model,
    *,
    window: float | None = None,
    stride: float | None = None,
    detector: str | Detector = "mtcnn",
    upright: bool = True,
    batch_size: int = 16,
) -> pd.DataFrame:
    """Classify the apparent expression of everybody in a video, or in a still picture as a clip of one frame.

    Example::

        from dfer_zoo import load, recognize
        model = load("best_val.ckpt", folded=True)
        table = recognize("clip.mp4", model)

    Args:
        video: the file.
        model: from `dfer_zoo.load`.
        window: seconds that are classified together; by default 1.1 for a model trained on FERV39k, else 2.8.
        stride: seconds from one window to the next; half a window by default.
        detector: ``mtcnn``, ``whole`` (videos that show one face and nothing else), ``module:name`` or a callable of
            the form of `dfer_zoo.video.faces.Detector`.
        upright: turn each face so that its eyes are level, as the training clips' are if they were cropped so.
        batch_size: windows that are classified at once.

    Returns:
        A row a segment: ``person`` (from 1), ``start`` and ``end`` (seconds), ``label``, ``confidence`` (its
        probability, 0..1) and the probability of each class. No rows where no face was found.

    Raises:
        DataError: no file, or none that can be read.
        InputError: an option out of range.
    """
    window, stride = window_and_stride(model.spec, window, stride, batch_size)
    if isinstance(detector, str):
        detector = load_detector(detector, device_of(model))
    footage = look_through(Path(video), detector, upright)
    windows = plan(footage, window, stride, model.spec["frames"])
    return classify(model, footage, windows, batch_size)


def window_and_stride(
    spec: dict[str, Any], window: float | None, stride: float | None, batch_size: int
) -> tuple[float, float]:
    """Return the seconds of a window and of a stride, the defaults filled in.

    Raises:
        InputError: one that is out of range.
    """
    window = WINDOW_SECONDS.get(spec["data"], OTHER_WINDOW_SECONDS) if window is None else window
    stride = window / 2 if stride is None else stride
    if not LEAST_WINDOW <= window < float("inf"):
        raise InputError(f"window is {window} seconds; allowed: {LEAST_WINDOW} or more.")
    if not LEAST_WINDOW / 2 <= stride <= window:
        raise InputError(f"stride is {stride} seconds; allowed: {LEAST_WINDOW / 2} to the window's {window:g}.")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; allowed: 1 or more.")
    return window, stride


def classify(
    model: Model,
    footage: Footage,
    windows: list[Window],
    batch_size: int = 16,
    progress: Progress = lambda second: None,
) -> pd.DataFrame:
    """Return the table of segments of a video's windows, by person and time; see `recognize`."""
    import torch

    labels = model.spec["labels"]
    probabilities = np.full((len(windows), len(labels)), np.nan)
    with torch.inference_mode():
        for batch in batches(clips(footage, windows, model.spec["size"], progress), batch_size):
            video = torch.from_numpy(np.stack([clip for _, clip in batch])).permute(0, 4, 1, 2, 3)
            logits = model(video.to(device_of(model))).logits.float().cpu().numpy()
            probabilities[[number for number, _ in batch]] = softmax(logits)
    table = pd.DataFrame(probabilities, columns=labels)
    best = probabilities.argmax(1) if len(windows) else np.zeros(0, int)
    heads = (
        [window.person for window in windows],
        [round(window.start, 3) for window in windows],
        [round(window.end, 3) for window in windows],
        [labels[i] for i in best],
        probabilities.max(1, initial=0),
    )
    for place, (name, values) in enumerate(zip(COLUMNS, heads, strict=True)):
        table.insert(place, name, values)
    return table


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Yield lists of up to `size` items, as they come.

    >>> list(batches("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def device_of(model: Model) -> str:
    """Return the name of the device that a model takes its clips on."""
    return str(getattr(model, "device", "cpu"))


def trained_on(spec: dict[str, Any]) -> str:
    """Say what a model was trained on.

    >>> trained_on({"model": "HDF", "data": "DFEW", "generated": True})
    "HDF, trained on generated faces in DFEW's layout"
    >>> trained_on({"model": "HDF", "data": "Clips"})
    'HDF, trained on clips of your own'
    """
    data = "clips of your own" if spec["data"] == "Clips" else spec["data"]
    if spec.get("generated"):
        data = f"generated faces in {data}'s layout"
    return f"{spec['model']}, trained on {data}"


NOTICE = "It estimates apparent expression, not what a person feels."
"""Belongs on everything that is written."""
