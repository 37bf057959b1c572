"""Detectors: the named ones, one's own, and whether crops come out as the datasets' are."""

import sys

import cv2
import numpy as np
import pytest
from films import render_faces

from dfer_zoo.errors import InputError
from dfer_zoo.video.cropping import square_of
from dfer_zoo.video.faces import WholeFrame, load_detector

PLACES = [(40, 60, 150), (330, 90, 130), (560, 240, 170)]
"""Left, top and side of each generated crop in a larger picture."""


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """A picture of three generated people, each pasted in whole as a training set's crop is."""
    picture = np.full((480, 800, 3), 100, np.uint8)
    faces = render_faces(tmp_path_factory.mktemp("rendered"), 3)
    for face, (x, y, side) in zip(faces, PLACES, strict=True):
        picture[y : y + side, x : x + side] = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return picture


def test_mtcnn_finds_generated_faces_and_the_crops_they_were(group: np.ndarray) -> None:
    pytest.importorskip("facenet_pytorch")
    detector = load_detector("mtcnn")
    wide = cv2.copyMakeBorder(group, 0, 0, 0, 700, cv2.BORDER_CONSTANT, value=(90, 90, 90))
    for picture in (group, wide):  # the larger one is shrunk for the search
        (found,) = detector([picture])
        assert len(found) == 3
        squares = [square_of(face)[0] for face in sorted(found, key=lambda face: face.box[0])]
        for square, (x, y, side) in zip(squares, PLACES, strict=True):
            np.testing.assert_allclose((square.x, square.y), (x + side / 2, y + side / 2), atol=0.08 * side)
            assert square.side == pytest.approx(side, rel=0.2)
            assert abs(square.angle) < 10


def test_mtcnn_answers_for_each_frame_and_finds_nothing_in_nothing(group: np.ndarray) -> None:
    pytest.importorskip("facenet_pytorch")
    detector = load_detector("mtcnn")
    blank = np.full_like(group, 120)
    found = detector([blank, group])
    assert [len(faces) for faces in found] == [0, 3]
    (alone,) = detector([group])
    for one, other in zip(found[1], alone, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=0.5)
        assert one.landmarks.shape == (5, 2)
        assert 0.9 <= one.score <= 1
    assert detector([blank]) == [[]]
    assert detector([np.zeros((8, 900, 3), np.uint8)]) == [[]]


def test_whole_frame_becomes_the_crop_it_is() -> None:
    ((face,),) = WholeFrame()([np.zeros((90, 160, 3), np.uint8)])
    assert square_of(face) == (pytest.approx((80, 45, 90, 0)), True)


def test_a_detector_of_ones_own() -> None:
    import films

    assert load_detector("films:find") is films.find


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("retina", "no detector 'retina'. There are: mtcnn, whole, and your own module:name"),
        ("no_such_module:find", "no_such_module:find cannot be imported"),
        ("films:lose", "films:lose cannot be imported"),
        (":", ": cannot be imported"),
    ],
)
def test_a_wrong_name_says_what_there_is(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_detector(name)


def test_without_its_package_the_detector_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(InputError, match=r"pip install 'dfer-zoo\[video\]'.*--detector whole"):
        load_detector("mtcnn")
