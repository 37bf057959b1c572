"""Cut each person's time into overlapping windows, and a video into the windows' clips, in one pass."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dfer_zoo.data.transforms import crop_and_resize
from dfer_zoo.video.cropping import Span, crop
from dfer_zoo.video.footage import Footage, Progress, frames_of

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of a whole frame."""


@dataclass(frozen=True)
class Window:
    """A stretch of a person's time that becomes one clip.

    Args:
        person: number of the person, from 1.
        start: in seconds.
        end: in seconds.
        span: the stretch of the person's time that it lies in.
        frames: ``(T,)`` numbers of the video's frames that the net sees.
    """

    person: int
    start: float
    end: float
    span: Span
    frames: np.ndarray


def plan(footage: Footage, seconds: float, stride: float, frames: int) -> list[Window]:
    """Return the windows of all people, by person and time.

    The frames of a window are those shown at the middles of T equal parts, which at a constant frame rate are those of
    `dfer_zoo.data.sampling.centred`. Where a person is seen for less than a window, that whole stretch is one.

    Args:
        footage: who is seen when.
        seconds: length of a window.
        stride: most seconds from one window's start to the next one's.
        frames: T.
    """
    windows = []
    for person, spans in enumerate(footage.people, 1):
        for span in spans:
            for start, end in cut_into_windows(span.start, span.end, seconds, stride):
                windows.append(Window(person, start, end, span, footage.frames(start, end, frames)))
    return windows


def cut_into_windows(start: float, end: float, seconds: float, stride: float) -> list[tuple[float, float]]:
    """Return evenly spaced windows that cover a stretch of time, from one to the next at most a stride.

    >>> cut_into_windows(0.0, 5.0, 2.0, 1.5)
    [(0.0, 2.0), (1.5, 3.5), (3.0, 5.0)]
    >>> cut_into_windows(1.0, 4.0, 2.0, 1.5)
    [(1.0, 3.0), (2.0, 4.0)]
    >>> cut_into_windows(1.0, 1.5, 2.0, 1.0)
    [(1.0, 1.5)]
    """
    spare = end - start - seconds
    if spare <= 0:
        return [(start, end)]
    count = math.ceil(spare / stride - 1e-6) + 1
    return [(float(first), float(first + seconds)) for first in np.linspace(start, end - seconds, count)]


def clips(
    footage: Footage, windows: list[Window], size: int, progress: Progress = lambda second: None
) -> Iterator[tuple[int, np.ndarray]]:
    """Read the video once and yield each window's number and clip ``(T, size, size, 3)`` uint8, as it is complete.

    Faces are cropped as the datasets' are and then resized as at evaluation. A crop is kept until the last window that
    needs it has passed.

    Args:
        footage: the file.
        windows: from `plan`.
        size: side of the clips' frames in pixels.
        progress: called as the pass goes on.
    """
    wanted: dict[int, list[int]] = {}  # frame -> windows that need it
    for number, window in enumerate(windows):
        for frame in np.unique(window.frames).tolist():
            wanted.setdefault(frame, []).append(number)
    crops: dict[tuple[int, int], np.ndarray] = {}  # (person, frame) -> crop
    needed: dict[tuple[int, int], int] = {}  # (person, frame) -> windows that still need it
    for position, (time, frame) in enumerate(frames_of(footage.path)):
        if position not in wanted:
            continue
        picture = frame()
        complete = []
        for number in wanted.pop(position):
            window = windows[number]
            key = (window.person, position)
            needed[key] = needed.get(key, 0) + 1
            if key not in crops:
                crops[key] = crop_and_resize([crop(picture, window.span.square(time))], [WHOLE], size)[0]
            if position == window.frames[-1]:
                complete.append(number)
        for number in complete:
            window = windows[number]
            yield number, np.stack([crops[window.person, i] for i in window.frames.tolist()])
            for i in np.unique(window.frames).tolist():
                needed[window.person, i] -= 1
                if not needed[window.person, i]:
                    del crops[window.person, i], needed[window.person, i]
        progress(time)
