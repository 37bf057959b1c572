"""Who is seen when, whatever the times between the frames and whichever way up they were filmed."""

import struct
from pathlib import Path

import numpy as np
import pytest
from films import RED, ColorModel, find, scene, write_film

from dfer_zoo.video.footage import Footage, look_through
from dfer_zoo.video.recognition import recognize

IDENTITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
CLOCKWISE = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
HALTING = [*(0.1 * np.arange(20)), *(2.0 + 3 * np.arange(1, 11))]
"""Ten frames a second for two seconds, then one every three: a shared screen on which little happens."""


def seen(path: Path, times: list[float], away: tuple[float, float] = (0, 0)) -> Footage:
    """Look through a film of one person, who is there but from one time to another."""
    face = (RED, 80, 60, 50)
    frames = [scene(*([] if away[0] < time < away[1] else [face])) for time in times]
    return look_through(write_film(path, frames, times), find)


@pytest.mark.parametrize("times", [np.arange(20), 3 * np.arange(20), 0.8 * np.arange(20), HALTING])
def test_who_is_in_every_frame_is_seen_throughout(times: list[float], tmp_path: Path) -> None:
    footage = seen(tmp_path / "film.mp4", list(times))
    ((span,),) = footage.people
    assert (span.start, span.end, footage.chance) == (0, footage.end, 0)
    assert footage.end >= times[-1]


def test_windows_of_rare_frames_overlap(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    seen(path, list(np.arange(20)))
    table = recognize(path, ColorModel(), window=4, detector=find)
    np.testing.assert_allclose(table["end"] - table["start"], 4)
    assert (np.diff(table["start"]) <= 2).all()


def test_who_is_missing_in_a_rare_frame_is_away_in_it(tmp_path: Path) -> None:
    footage = seen(tmp_path / "film.mp4", list(np.arange(20)), away=(9.5, 10.5))
    ((before, after),) = footage.people  # the same person: two seconds are waited for
    assert (before.end, after.start) == (9.5, 10.5)
    assert len(seen(tmp_path / "other.mp4", list(3 * np.arange(20)), away=(29, 31)).people) == 2


def test_a_video_filmed_upright_is_turned_before_it_is_looked_at(tmp_path: Path) -> None:
    upright = scene((RED, 30, 100, 40), height=160, width=120)
    path = write_film(tmp_path / "phone.mp4", [np.ascontiguousarray(np.rot90(upright))] * 5)
    content = path.read_bytes()
    start = content.index(IDENTITY, content.index(b"tkhd"))
    path.write_bytes(content[:start] + CLOCKWISE + content[start + len(IDENTITY) :])
    footage = look_through(path, find)
    assert footage.shape == (160, 120)
    ((span,),) = footage.people
    square = span.square(0.2)
    assert (square.x, square.y) == pytest.approx((30, 100), abs=3)


def test_a_face_seen_once_is_chance(tmp_path: Path) -> None:
    frames = [scene(*([(RED, 80, 60, 50)] if number == 8 else [])) for number in range(30)]
    footage = look_through(write_film(tmp_path / "flash.mp4", frames), find)
    assert (footage.people, footage.chance) == ([], 1)
