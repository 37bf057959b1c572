"""Cut faces out as the training sets' faces are: upright, square, 224 pixels.

DFEW and FERV39k come as aligned crops whose margins are not documented, and the generated sets imitate them. So the
margins here were measured on generated crops: MTCNN on 140 frames of 70 clips of 224 px found, in shares of the crop's
side, boxes of 0.94 +- 0.07 (square root of the area), centred at (0.49 +- 0.03, 0.51 +- 0.03), with the eyes' middle at
(0.51 +- 0.02, 0.38 +- 0.02); the point between the eyes' middle and the box's centre varies least.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from dfer_zoo.video.faces import Detection
    from dfer_zoo.video.tracking import Track

CROP_SIZE = 224
"""Side of a crop in pixels, as in DFEW and FERV39k; what a net takes is resized from it, as in training."""
SIDE = 1.06
"""Side of the crop, in sides of the detector's box (the square root of its area)."""
ANCHOR = 0.445
"""Height in the crop of the point midway between the eyes' middle and the centre of the box, from the top."""
CLEAR_EYES = 0.2
"""Least distance of the eyes, in sides of the crop, from which the face's angle is read; a profile's is noise."""
BRIDGED = 0.7
"""Seconds over which a face is still cropped that the looks in between did not find: a detector blinks too."""
PLACE_SECONDS, SIZE_SECONDS, ANGLE_SECONDS = 0.2, 0.8, 0.3
"""Standard deviations of the smoothing: a box of its own for every frame would jitter as no training clip does."""


class Square(NamedTuple):
    """Where a crop is taken from a frame."""

    x: float
    """Of its centre, in pixels."""
    y: float
    side: float
    angle: float
    """Of the line through the eyes, in degrees; positive where the picture's right eye is lower."""

    def corners(self) -> np.ndarray:
        """Return the corners ``(4, 2)``: upper left, upper right, lower right, lower left of the upright crop."""
        turn = np.radians(self.angle)
        right, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
        centre = np.array([self.x, self.y])
        return np.stack(
            [centre + self.side / 2 * (i * right + j * down) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        )


def square_of(face: "Detection") -> tuple[Square, bool]:
    """Return the crop of a face, and whether its angle is to be trusted."""
    centre = (face.box[:2] + face.box[2:]) / 2
    side = SIDE * float(np.sqrt(np.prod(face.box[2:] - face.box[:2])))
    if face.landmarks is None:
        return Square(*centre.tolist(), side, 0.0), True
    left, right = face.landmarks[:2]
    across = right - left
    clear = float(np.linalg.norm(across)) >= CLEAR_EYES * side
    angle = float(np.degrees(np.arctan2(across[1], across[0]))) if clear else 0.0
    anchor = ((left + right) / 2 + centre) / 2
    down = np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    return Square(*(anchor + (0.5 - ANCHOR) * side * down).tolist(), side, angle), clear


@dataclass(frozen=True)
class Span:
    """A stretch of time in which a person is seen without a longer gap, and the smoothed crop in it.

    Args:
        start: in seconds.
        end: in seconds.
        times: ``(n,)`` seconds of the sightings.
        squares: ``(n, 4)`` x, y, side and angle at these times, smoothed.
    """

    start: float
    end: float
    times: np.ndarray
    squares: np.ndarray

    def square(self, time: float) -> Square:
        """Return the crop at a time, linear between sightings."""
        return Square(*(float(np.interp(time, self.times, column)) for column in self.squares.T))


def spans_of(track: "Track", looks: np.ndarray, cuts: Sequence[float], end: float, upright: bool = True) -> list[Span]:
    """Return the stretches in which a person is seen.

    Each reaches half the way to the look that did not find the person, but not towards a cut.

    Args:
        track: the person.
        looks: ``(n,)`` seconds at which faces were searched for.
        cuts: looks between which and the look before the camera was cut.
        end: of the video, in seconds.
        upright: turn the crop so that the eyes are level.
    """
    times = np.array([sighting.time for sighting in track.sightings])
    found = [square_of(sighting.face) for sighting in track.sightings]
    squares = np.array([square for square, _ in found])
    clear = np.array([is_clear for _, is_clear in found], float)
    spans = []
    missed = np.diff(np.searchsorted(looks, times)) > 1  # however far apart the looks are
    for part in np.split(np.arange(len(times)), np.flatnonzero(missed & (np.diff(times) > BRIDGED)) + 1):
        before = bisect_left(looks, times[part[0]]) - 1
        after = bisect_right(looks, times[part[-1]])
        start, stop = times[part[0]], times[part[-1]]
        if start not in cuts:
            start = (looks[before] + start) / 2 if before >= 0 else 0.0
        if after == len(looks):
            stop = end
        elif looks[after] not in cuts:
            stop = (looks[after] + stop) / 2
        smoothed = [
            smooth(times[part], squares[part, 0], PLACE_SECONDS),
            smooth(times[part], squares[part, 1], PLACE_SECONDS),
            np.exp(smooth(times[part], np.log(squares[part, 2]), SIZE_SECONDS)),
            smooth(times[part], squares[part, 3], ANGLE_SECONDS, clear[part]) * upright,
        ]
        spans.append(Span(float(start), float(stop), times[part], np.stack(smoothed, 1)))
    return spans


def smooth(times: np.ndarray, values: np.ndarray, seconds: float, weights: np.ndarray | None = None) -> np.ndarray:
    """Smooth values by local linear regression with a Gaussian kernel: uniform motion stays as it is, ends included.

    Args:
        times: ``(n,)`` rising.
        values: ``(n,)``.
        seconds: standard deviation of the kernel; four of them are looked at.
        weights: ``(n,)`` of the values, 1 by default; 0 where no value around has any.

    Returns:
        ``(n,)``.
    """
    weights = np.ones(len(times)) if weights is None else weights
    smoothed = np.zeros(len(times))
    for i, time in enumerate(times):
        near = slice(bisect_left(times, time - 4 * seconds), bisect_right(times, time + 4 * seconds))
        x = (times[near] - time) / seconds
        weight = weights[near] * np.exp(-(x**2) / 2)
        total = weight.sum()
        if total < 1e-6:
            continue
        mean_x, mean = (weight * x).sum() / total, (weight * values[near]).sum() / total
        spread = (weight * (x - mean_x) ** 2).sum()
        slope = (weight * (x - mean_x) * values[near]).sum() / spread if spread > 1e-3 * total else 0.0
        smoothed[i] = mean - slope * mean_x
    return smoothed


def crop(frame: np.ndarray, square: Square, size: int = CROP_SIZE) -> np.ndarray:
    """Cut a square out of a frame ``(H, W, 3)`` and turn it upright; beyond the frame its border is repeated.

    Returns:
        ``(size, size, 3)`` uint8.
    """
    finer = max(1, int(np.ceil(square.side / size)))  # each pixel of a large face counts
    corners = square.corners()[:3].astype(np.float32)
    side = size * finer
    matrix = cv2.getAffineTransform(corners, np.float32([[0, 0], [side, 0], [side, side]]))
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5  # pixels' centres, not their corners, are what is sampled
    turned = cv2.warpAffine(frame, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return turned if finer == 1 else cv2.resize(turned, (size, size), interpolation=cv2.INTER_AREA)
