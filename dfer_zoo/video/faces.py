"""Face detectors behind one interface: frames in, boxes with five landmarks out.

Another detector is a callable of the same form, named ``module:name`` where a detector is asked for.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from dfer_zoo.errors import InputError
from dfer_zoo.video.cropping import SIDE


class Detection(NamedTuple):
    """A face in a frame, in pixels of that frame."""

    box: np.ndarray
    """``(4,)`` left, top, right, bottom."""
    score: float
    """Confidence of the detector, 0 to 1."""
    landmarks: np.ndarray | None
    """``(5, 2)`` x and y of the eyes, the nose and the corners of the mouth, the picture's left before its right; None
    from a detector without landmarks."""


class Detector(Protocol):
    """What finds faces."""

    def __call__(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Return the faces of each frame.

        Args:
            frames: ``(H, W, 3)`` uint8 RGB, upright, all of one size.
        """
        ...


class MTCNN:
    """Multi-task cascaded networks of facenet-pytorch (Zhang et al. 2016, arXiv:1604.02878); weights in its package.

    Args:
        device: torch device to run on.

    Raises:
        InputError: facenet-pytorch is not installed.
    """

    LONGEST = 640
    """Frames are shrunk to this length of their longer side, in pixels: the cost grows with the area."""
    SMALLEST = 32
    """Smallest face that is searched for, in pixels of the shrunk frame: a twentieth of its longer side."""
    LEAST_SCORE = 0.9
    """Least confidence: on photographs, false faces stay below."""

    def __init__(self, device: str = "cpu") -> None:
        try:
            from facenet_pytorch import MTCNN as Cascade
        except ImportError as error:
            raise InputError(
                "The detector mtcnn needs facenet-pytorch: pip install 'dfer-zoo[video]'. Without it: --detector whole "
                "for videos that show one face and nothing else, or your own as --detector module:name."
            ) from error
        self.cascade = Cascade(keep_all=True, min_face_size=self.SMALLEST, device=device)

    def __call__(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        """See `Detector`."""
        height, width = frames[0].shape[:2]
        scale = min(1.0, self.LONGEST / max(height, width))
        if min(height, width) * scale < self.SMALLEST:
            return [[] for _ in frames]
        size = (round(width * scale), round(height * scale))
        shrunk = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame for frame in frames]
        found = []
        for boxes, scores, points in zip(*self.cascade.detect(np.stack(shrunk), landmarks=True), strict=True):
            rows = [] if boxes is None else zip(boxes, scores, points, strict=True)
            found.append(
                [
                    Detection(np.float32(box) / scale, float(score), np.float32(point) / scale)
                    for box, score, point in rows
                    if score >= self.LEAST_SCORE
                ]
            )
        return found


class WholeFrame:
    """Take the centred square of every frame for a face: for videos that are cropped already.

    Args:
        device: not used.
    """

    def __init__(self, device: str = "cpu") -> None:
        pass

    def __call__(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        """See `Detector`."""
        height, width = frames[0].shape[:2]
        half = min(height, width) / SIDE / 2
        x, y = width / 2, height / 2
        return [[Detection(np.float32([x - half, y - half, x + half, y + half]), 1.0, None)] for _ in frames]


DETECTORS: dict[str, Callable[[str], Detector]] = {"mtcnn": MTCNN, "whole": WholeFrame}
"""The detectors that have a name."""


def load_detector(name: str, device: str = "cpu") -> Detector:
    """Return a detector by its name, or by ``module:name`` a callable of one's own, as it is.

    Raises:
        InputError: no such detector, or one whose package is not installed.
    """
    if name in DETECTORS:
        return DETECTORS[name](device)
    module, colon, attribute = name.partition(":")
    if not colon:
        raise InputError(f"There is no detector {name!r}. There are: {', '.join(DETECTORS)}, and your own module:name.")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"The detector {name} cannot be imported: {error}.") from error
