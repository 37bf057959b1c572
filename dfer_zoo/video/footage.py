"""The first pass over a file: when its frames are shown, and who is seen in them.

A video is never held in memory: a pass keeps the frames it is looking at, and of what it saw a number a frame and a box
a sighting.
"""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dfer_zoo.data.reading import IMAGE_SUFFIXES, read_image, timed_frames, video_seconds
from dfer_zoo.errors import DataError
from dfer_zoo.video.cropping import Span, spans_of
from dfer_zoo.video.faces import Detector
from dfer_zoo.video.tracking import Tracker

LOOK_SECONDS = 0.2
"""Seconds between the frames in which faces are searched for; in between, places are interpolated."""
LOOKS_AT_ONCE = 4
"""Frames handed to the detector together."""
LEAST_SIGHTINGS = 3
"""A face found fewer times is taken for chance, unless the video has fewer looks."""
CUT = 30.0
"""Mean difference of grey levels, between looks, from which the camera shows something else: in the project's trial
videos it was at most 14 within a shot and 77 or more across cuts."""

Progress = Callable[[float], None]
"""Told the second up to which a pass has come."""


def is_image(path: Path) -> bool:
    """Return whether a file is a still picture by its name."""
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def frames_of(path: Path) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Yield the frames of a video or still picture: second, and what converts it to upright ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: missing, or no video and no picture.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder. Name the files in it: {path}/*.")
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if is_image(path):
        yield 0.0, lambda: read_still(path)
    else:
        yield from timed_frames(str(path))


def read_still(path: Path) -> np.ndarray:
    """Decode a still picture to ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: none, or cut off; what `read_image` advises is for a clip's frames.
    """
    try:
        return read_image(path)
    except DataError as error:
        said = f"{path} ({path.stat().st_size} bytes) is no picture that can be read. Is the file complete?"
        raise DataError(said) from error


@dataclass(frozen=True)
class Footage:
    """What the first pass over a file found.

    Args:
        path: the file.
        times: ``(n,)`` seconds at which each frame is shown, rising from 0.
        end: second at which the last frame ends; 0 for a still picture.
        looks: ``(m,)`` seconds of the frames in which faces were searched for.
        people: the stretches of time in which each person is seen, by first appearance.
        chance: faces that were found too seldom to be followed.
        shape: height and width of the last frame in pixels.
    """

    path: Path
    times: np.ndarray
    end: float
    looks: np.ndarray
    people: list[list[Span]]
    chance: int
    shape: tuple[int, int]

    def frames(self, start: float, end: float, count: int) -> np.ndarray:
        """Return the numbers ``(count,)`` of the frames shown at the middles of equal parts of a stretch of time."""
        moments = start + (np.arange(count) + 0.5) / count * (end - start)
        return np.clip(np.searchsorted(self.times, moments, "right") - 1, 0, len(self.times) - 1)


def look_through(
    path: Path, detector: Detector, upright: bool = True, progress: Progress = lambda second: None
) -> Footage:
    """Find and follow the people in a file.

    Args:
        path: a video or a still picture.
        detector: what finds faces.
        upright: level the eyes.
        progress: called as the pass goes on.

    Raises:
        DataError: missing, unreadable, or without a frame.
    """
    times, looks = array("d"), array("d")
    waiting: list[tuple[float, np.ndarray]] = []
    tracker = Tracker()
    last: np.ndarray | None = None
    cuts: list[float] = []

    def look() -> None:
        nonlocal last
        for (time, frame), faces in zip(waiting, detector([frame for _, frame in waiting]), strict=True):
            small = thumbnail(frame)
            if last is not None and np.abs(small - last).mean() >= CUT:
                tracker.cut()
                cuts.append(time)
            last = small
            tracker.update(time, faces)
        progress(waiting[-1][0])
        waiting.clear()

    def take(time: float, picture: np.ndarray) -> None:
        if waiting and picture.shape != waiting[0][1].shape:  # some recordings change their size
            look()
        looks.append(time)
        waiting.append((time, picture))
        if len(waiting) == LOOKS_AT_ONCE:
            look()

    frame = None
    for time, frame in frames_of(path):
        times.append(time)
        if not looks or time - looks[-1] > LOOK_SECONDS - 1e-3:  # time stamps are rounded
            take(time, frame())
    if frame is None:
        raise DataError(f"{path} has no readable video frame. Is the file complete?")
    picture = frame()
    if looks[-1] < times[-1]:  # whoever is still there in the last frame is there to the end
        take(times[-1], picture)
    if waiting:
        look()
    end = 0.0 if is_image(path) else times[-1] + float(np.median(np.diff(times))) if len(times) > 1 else times[-1]
    least = min(LEAST_SIGHTINGS, len(looks))
    tracks = [track for track in tracker.tracks if len(track.sightings) >= least]
    seen = np.array(looks)
    return Footage(
        path,
        np.array(times),
        end,
        seen,
        [spans_of(track, seen, cuts, end, upright) for track in tracks],
        len(tracker.tracks) - len(tracks),
        picture.shape[:2],
    )


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """Return a frame's grey levels ``(16, 16)``, which tell a cut from a movement."""
    return cv2.cvtColor(cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(float)


def length_of(path: Path) -> float | None:
    """Return how many seconds a file says it lasts, None if it does not or is a still picture."""
    return None if is_image(path) or not path.is_file() else video_seconds(str(path))
