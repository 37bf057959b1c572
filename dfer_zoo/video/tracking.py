"""Which boxes of successive moments are the same person: overlap first, expected place second.

Nobody is recognised: a person is who moves continuously. Somebody who is away for longer than `PATIENCE`, or across a
cut, comes back as another person.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dfer_zoo.video.faces import Detection

PATIENCE = 2.0
"""Seconds for which a person who is not seen is waited for, but at least until the next look."""
LEAST_OVERLAP = 0.1
"""Least intersection over union of a box with the expected one."""
LEAST_RATIO = 0.6
"""Least ratio of the smaller to the larger side of boxes that do not overlap but are near each other."""
TRUSTED_MOTION = 0.5
"""Seconds for which a person is expected to go on moving as before."""


class Sighting(NamedTuple):
    """A person's face at a moment."""

    time: float
    """Seconds."""
    face: Detection


@dataclass
class Track:
    """A person: the face at each moment at which it was found.

    Args:
        sightings: in order of time.
    """

    sightings: list[Sighting] = field(default_factory=list)

    def expected(self, time: float) -> np.ndarray:
        """Return the box ``(4,)`` at which the person is expected at a time."""
        last = self.sightings[-1]
        if len(self.sightings) < 2:
            return last.face.box
        before = self.sightings[-2]
        passed = last.time - before.time
        if passed > TRUSTED_MOTION:
            return last.face.box
        velocity = (centre(last.face.box) - centre(before.face.box)) / passed
        return last.face.box + np.tile(velocity * min(time - last.time, TRUSTED_MOTION), 2)


class Tracker:
    """Join the faces found at rising times into people.

    Attributes:
        tracks: all people so far, in order of their first sighting.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.active: list[Track] = []
        self.looked = float("-inf")

    def update(self, time: float, faces: list[Detection]) -> None:
        """Give each face to the person it continues, or to a new one; nobody gets two faces of one moment.

        Pairs are taken greedily: the greatest overlap first, then, where nothing overlaps, the nearest.
        """
        patience = max(PATIENCE, time - self.looked)  # nobody is missing who was seen at the look before
        self.active = [track for track in self.active if time - track.sightings[-1].time <= patience]
        self.looked = time
        pairs = []
        for i, track in enumerate(self.active):
            expected = track.expected(time)
            for j, face in enumerate(faces):
                overlap = intersection_over_union(expected, face.box)
                distance, ratio = compare(expected, face.box)
                if overlap >= LEAST_OVERLAP or (distance < 1 and ratio >= LEAST_RATIO):
                    pairs.append((-overlap, distance, i, j))
        taken: dict[int, int] = {}
        for _, _, i, j in sorted(pairs):
            if j not in taken and i not in taken.values():
                taken[j] = i
        known = list(self.active)
        for j, face in enumerate(faces):
            if j in taken:
                track = known[taken[j]]
            else:
                track = Track()
                self.tracks.append(track)
                self.active.append(track)
            track.sightings.append(Sighting(time, face))

    def cut(self) -> None:
        """End all people: the camera shows something else."""
        self.active = []


def centre(box: np.ndarray) -> np.ndarray:
    """Return the centre ``(2,)`` of a box."""
    return (box[:2] + box[2:]) / 2


def compare(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return the distance of two boxes' centres in mean sides, and the ratio of the smaller to the larger side."""
    sides = sorted(float(np.sqrt(np.prod(box[2:] - box[:2]))) for box in (a, b))
    distance = float(np.linalg.norm(centre(a) - centre(b)))
    return 2 * distance / max(sum(sides), 1e-9), sides[0] / max(sides[1], 1e-9)


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """Return the area that two boxes share, as a share of the area that they cover together.

    >>> intersection_over_union(np.array([0, 0, 2, 2]), np.array([1, 0, 3, 2]))
    0.3333333333333333
    """
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    together = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / together if together > 0 else 0.0
