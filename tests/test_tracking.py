"""People are followed as they move, leave and return; their crops are smooth, level and where the face is."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from films import face_in
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dfer_zoo.video.cropping import ANCHOR, BRIDGED, SIDE, Span, Square, crop, smooth, spans_of, square_of
from dfer_zoo.video.faces import Detection
from dfer_zoo.video.tracking import PATIENCE, Sighting, Track, Tracker, intersection_over_union

LOOK = 0.2
coordinates = st.integers(0, 30)
boxes = st.tuples(coordinates, coordinates, st.integers(1, 20), st.integers(1, 20)).map(
    lambda box: np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])
)


def face(x: float, y: float, side: float = 40) -> Detection:
    return face_in(x - side / 2, y - side / 2, side, side)


def follow(moments: dict[float, list[Detection]]) -> list[Track]:
    tracker = Tracker()
    for time, faces in moments.items():
        tracker.update(time, faces)
    return tracker.tracks


@given(boxes, boxes)
def test_intersection_over_union_counts_pixels(a: np.ndarray, b: np.ndarray) -> None:
    rows, columns = np.mgrid[0:60, 0:60]
    inside = [(columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1) for x0, y0, x1, y1 in (a, b)]
    expected = (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()
    assert intersection_over_union(a, b) == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_people_who_move_apart_from_each_other_keep_their_track(data: st.DataObject) -> None:
    people = data.draw(st.integers(1, 4))
    velocity = [data.draw(st.tuples(st.floats(-100, 100), st.floats(-100, 100))) for _ in range(people)]
    sizes = [data.draw(st.floats(30, 60)) for _ in range(people)]
    seen = data.draw(st.lists(st.lists(st.booleans(), min_size=people, max_size=people), min_size=3, max_size=25))
    seen[0] = seen[1] = [True] * people  # a motion can be known
    moments, truth = {}, []
    for number, row in enumerate(seen):
        time = number * LOOK
        places = [(400 * i + vx * time, vy * time) for i, (vx, vy) in enumerate(velocity)]
        assume(all(b[0] - a[0] > 120 for a, b in pairwise(places)))
        present = [(i, face(*places[i], sizes[i])) for i in range(people) if row[i]]
        present = data.draw(st.permutations(present))
        moments[time] = [found for _, found in present]
        truth.append(dict(present))
    for i in range(people):  # nobody is away for so long that the place is a guess
        times = [number * LOOK for number, row in enumerate(seen) if row[i]]
        assume(all(later - earlier <= 2.1 * LOOK for earlier, later in pairwise(times)))
    tracks = follow(moments)
    assert len(tracks) == people
    for i in range(people):
        expected = [faces[i] for faces in truth if i in faces]
        (track,) = [track for track in tracks if track.sightings[0].face is expected[0]]
        assert [sighting.face for sighting in track.sightings] == expected


@settings(deadline=None)
@given(st.lists(st.lists(boxes, max_size=5), max_size=12))
def test_every_face_belongs_to_exactly_one_person(frames: list[list[np.ndarray]]) -> None:
    moments = {LOOK * i: [Detection(box.astype(float), 1.0, None) for box in found] for i, found in enumerate(frames)}
    tracks = follow(moments)
    given_out = [id(sighting.face) for track in tracks for sighting in track.sightings]
    assert sorted(given_out) == sorted(id(found) for faces in moments.values() for found in faces)
    for track in tracks:
        times = [sighting.time for sighting in track.sightings]
        assert times == sorted(set(times))
        assert all(later - earlier <= PATIENCE for earlier, later in pairwise(times))


@pytest.mark.parametrize(("away", "people"), [(1.0, 1), (PATIENCE - 0.1, 1), (PATIENCE + 0.3, 2)])
def test_who_leaves_and_returns_is_the_same_person_for_a_while(away: float, people: int) -> None:
    moments = {LOOK * i: [face(100, 100)] for i in range(5)}
    for i in range(1, 8):
        moments[0.8 + away * i / 8] = []
    moments |= {0.8 + away + LOOK * i: [face(110, 95)] for i in range(5)}
    tracks = follow(moments)
    assert len(tracks) == people
    looks = np.array(list(moments))
    spans = [span for track in tracks for span in spans_of(track, looks, [], looks[-1] + 0.1)]
    assert len(spans) == 2
    assert spans[0].start == 0
    assert spans[0].end == pytest.approx(0.8 + away / 16)  # half the way to the look that found nothing
    assert spans[1].start == pytest.approx(0.8 + away * 15 / 16)
    assert spans[1].end == pytest.approx(looks[-1] + 0.1)


def test_nobody_reaches_across_a_cut() -> None:
    track = Track([Sighting(time, face(100, 80)) for time in np.arange(2, 5) * LOOK])
    looks = np.arange(7) * LOOK
    for cuts, expected in (([], (0.3, 0.9)), ([looks[2]], (0.4, 0.9)), ([looks[5]], (0.3, 0.8))):
        (span,) = spans_of(track, looks, cuts, 1.4)
        assert (span.start, span.end) == pytest.approx(expected)


def test_a_missed_look_is_bridged() -> None:
    times = [0.0, 0.2, 0.4, 0.8, 1.0]
    track = Track([Sighting(time, face(100 + 50 * time, 80)) for time in times])
    (span,) = spans_of(track, np.arange(6) * LOOK, [], 1.2)
    assert BRIDGED > 0.4
    assert span.square(0.6).x == pytest.approx(130, abs=0.5)


def test_a_cut_begins_new_people() -> None:
    tracker = Tracker()
    tracker.update(0.0, [face(50, 50)])
    tracker.cut()
    tracker.update(0.2, [face(50, 50)])
    assert [len(track.sightings) for track in tracker.tracks] == [1, 1]


def test_fast_motion_is_expected() -> None:
    x = [0, 30, 75, 135, 195, 255]  # at last more than a side a look
    passing = [300 - place for place in x]
    moments = {LOOK * i: [face(a, 100), face(b, 150)] for i, (a, b) in enumerate(zip(x, passing, strict=True))}
    tracks = follow(moments)
    assert [[sighting.face.box[1] for sighting in track.sightings] for track in tracks] == [[80] * 6, [130] * 6]


@settings(deadline=None)
@given(
    st.lists(st.floats(0.05, 0.5), min_size=1, max_size=30),
    st.floats(-100, 100),
    st.floats(-50, 50),
    st.floats(0.1, 1.0),
)
def test_smoothing_keeps_uniform_motion(steps: list[float], start: float, speed: float, seconds: float) -> None:
    times = np.cumsum(steps)
    values = start + speed * times
    np.testing.assert_allclose(smooth(times, values, seconds), values, atol=0.05 * abs(speed) + 1e-6)


def test_smoothing_is_local_linear_regression() -> None:
    rng = np.random.default_rng(0)
    times, values, weights = np.sort(rng.uniform(0, 10, 40)), rng.normal(size=40), rng.uniform(0.2, 1, 40)
    expected = []
    for time in times:
        kernel = np.sqrt(weights * np.exp(-((times - time) ** 2) / 2 / 0.8**2))
        design = np.stack([np.ones(40), times - time], 1)
        expected.append(np.linalg.lstsq(design * kernel[:, None], values * kernel, rcond=None)[0][0])
    np.testing.assert_allclose(smooth(times, values, 0.8, weights), expected, atol=2e-3)


def test_smoothing_halves_jitter_and_passes_over_what_has_no_weight() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(200) * LOOK
    jitter = rng.normal(0, 3, 200)
    assert smooth(times, 50 + jitter, 0.8).std() < 0.5 * jitter.std()
    weights = (np.arange(200) % 2).astype(float)
    np.testing.assert_allclose(smooth(times, 5 * weights + 1e3 * (1 - weights), 0.3, weights), 5)
    assert (smooth(times, jitter, 0.3, np.zeros(200)) == 0).all()


@pytest.mark.parametrize("angle", [-40, -10, 0, 25])
def test_a_tilted_head_is_levelled(angle: float) -> None:
    upright = face(200, 150, 100)
    turn = cv2.getRotationMatrix2D((200, 150), -angle, 1)  # OpenCV counts the other way round
    points = upright.landmarks @ turn[:, :2].T + turn[:, 2]
    picture = np.full((300, 400, 3), 90, np.uint8)
    for x, y in points[:2]:
        cv2.circle(picture, (round(x), round(y)), 4, (255, 255, 255), cv2.FILLED)
    square, clear = square_of(Detection(upright.box, 1.0, points.astype(np.float32)))
    assert clear
    assert square.angle == pytest.approx(angle, abs=0.1)
    assert square.side == pytest.approx(SIDE * 100)
    cut = crop(picture, square, 200)
    _, _, _, places = cv2.connectedComponentsWithStats((cut[..., 0] > 180).astype(np.uint8))
    eyes = places[1:][np.argsort(places[1:, 0])]
    assert abs(eyes[0][1] - eyes[1][1]) < 2  # level
    assert eyes[:, 0].mean() == pytest.approx(100, abs=2)  # in the middle
    # the anchor lies midway between the eyes, 12 % of the box above its centre, and that centre
    assert eyes[:, 1].mean() == pytest.approx(200 * (ANCHOR - 0.06 / SIDE), abs=4)


def test_the_eyes_of_a_profile_do_not_turn_the_crop() -> None:
    profile = face(100, 100, 80)
    profile.landmarks[:2] = [[100, 80], [104, 92]]
    square, clear = square_of(profile)
    assert not clear
    assert square.angle == 0
    track = Track([Sighting(LOOK * i, profile if i == 2 else face(100, 100, 80)) for i in range(5)])
    (span,) = spans_of(track, np.arange(5) * LOOK, [], 1.0)
    np.testing.assert_allclose(span.squares[:, 3], 0, atol=1e-6)
    tilted = face(100, 100, 80)
    tilted.landmarks[0, 1] += 10
    for upright in (True, False):
        (span,) = spans_of(Track([Sighting(0.0, tilted)]), np.zeros(1), [], 0.0, upright)
        assert (span.squares[0, 3] != 0) == upright


def test_a_crop_of_the_whole_frame_is_the_frame() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(crop(picture, Square(16, 16, 32, 0), 32), picture)
    np.testing.assert_array_equal(crop(picture, Square(20, 12, 8, 0), 8), picture[8:16, 16:24])
    np.testing.assert_array_equal(crop(picture, Square(16, 16, 32, 90), 32), np.rot90(picture, 1))


def test_a_large_face_is_averaged_and_the_border_repeated() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    small = crop(picture, Square(32, 32, 64, 0), 16)
    expected = picture.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - expected).max() <= 1
    beyond = crop(picture, Square(0, 32, 64, 0), 64)
    np.testing.assert_array_equal(beyond[:, :32], np.repeat(picture[:, :1], 32, 1))
    np.testing.assert_array_equal(beyond[:, 32:], picture[:, :32])


def test_a_square_between_sightings_is_between_them() -> None:
    span = Span(0.0, 2.0, np.array([0.5, 1.5]), np.array([[10.0, 20, 30, 0], [20, 40, 40, 10]]))
    assert span.square(1.0) == pytest.approx((15, 30, 35, 5))
    assert span.square(0.0) == pytest.approx((10, 20, 30, 0))
    assert span.square(2.0) == pytest.approx((20, 40, 40, 10))
