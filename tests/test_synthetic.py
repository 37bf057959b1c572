"""Generated faces: reproducible, resumable, in the real layouts, and with expressions that can be seen."""

import csv
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_interruption import killed

from dfer_zoo.data import DFEW
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.synthetic import synthesize
from dfer_zoo.synthetic.appearance import draw_person
from dfer_zoo.synthetic.dataset import Job, claim, render_to_disk
from dfer_zoo.synthetic.expressions import PROTOTYPES, Timing, actions_of, draw_habits, draw_timing, perform
from dfer_zoo.synthetic.plan import SCENES, class_counts, make_plan
from dfer_zoo.synthetic.raster import face_normals, rasterise, vertex_normals
from dfer_zoo.synthetic.render import deform
from dfer_zoo.synthetic.rig import RIG_FILE, load_rig

SMALL = {"clips": 35, "size": 32, "frames": (4, 6)}


def digest(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def dfew(tmp_path_factory) -> Path:
    return synthesize("dfew", tmp_path_factory.mktemp("made") / "dfew", workers=1, **SMALL)


@pytest.fixture(scope="module")
def ferv(tmp_path_factory) -> Path:
    return synthesize("ferv39k", tmp_path_factory.mktemp("made") / "ferv39k", workers=1, **SMALL)


def test_a_generated_set_is_known_as_one(dfew: Path, dfew_root: Path) -> None:
    assert DFEW(str(dfew)).generated
    assert not DFEW(str(dfew_root)).generated


def table(root: Path) -> list[dict[str, str]]:
    with (root / "synthetic_clips.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_same_bytes_for_any_number_of_workers(dfew, tmp_path):
    other = synthesize("dfew", tmp_path / "dfew", workers=2, **SMALL)
    assert digest(other) == digest(dfew)


def test_seed_changes_the_clips(dfew, tmp_path):
    clip = make_plan("dfew", 35, 0, "auto", (4, 6))[0]
    for seed, same in ((0, True), (1, False)):
        job = Job("dfew", tmp_path / str(seed), seed, 32, (0.6, 1.0), (0.8, 1.2), 7.0)
        render_to_disk(job, (clip, "00001"))
        again = [file.read_bytes() for file in sorted((tmp_path / str(seed) / "00001").iterdir())]
        first = [file.read_bytes() for file in sorted((dfew / "Clip" / "clip_224x224" / "00001").iterdir())]
        assert (again == first) is same


def test_continues_after_an_interruption(dfew, tmp_path):
    root = tmp_path / "dfew"
    shutil.copytree(dfew, root)
    clips = root / "Clip" / "clip_224x224"
    for name in ("00003", "00030"):
        shutil.rmtree(clips / name)
    (clips / ".00003.part").mkdir()
    (clips / ".00003.part" / "00001.jpg").write_bytes(b"cut off")
    (root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_2.csv").unlink()
    kept = (clips / "00001" / "00001.jpg").stat().st_mtime_ns
    synthesize("dfew", root, workers=1, **SMALL)
    assert digest(root) == digest(dfew)
    assert (clips / "00001" / "00001.jpg").stat().st_mtime_ns == kept


def test_killed_at_any_moment_the_same_words_go_on(dfew, tmp_path):
    """Killed over and over, each time a little later, the set becomes the one that was never interrupted."""
    root, deaths = tmp_path / "dfew", 0
    while killed(lambda: synthesize("dfew", root, workers=1, **SMALL), seconds=0.02 * 1.8**deaths):
        deaths += 1
    assert deaths > 3
    assert digest(root) == digest(dfew)


def test_killed_before_the_folder_was_marked_the_same_words_go_on(tmp_path):
    def kill(path: Path, text: str) -> None:
        path.open("w").close()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", kill)
        process = multiprocessing.get_context("fork").Process(target=claim, args=(tmp_path / "dfew", {"seed": 0}))
        process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "dfew").iterdir()] == [".synthetic.json.part"]
    claim(tmp_path / "dfew", {"seed": 0})
    assert [path.name for path in (tmp_path / "dfew").iterdir()] == ["synthetic.json"]


def test_refuses_a_folder_it_did_not_make(tmp_path):
    (tmp_path / "Clip").mkdir()
    with pytest.raises(InputError, match="not made by the generator"):
        synthesize("dfew", tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["Clip"]


def test_a_full_disk_and_a_folder_that_cannot_be_one_are_errors_that_are_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"set cannot be written: No space left on device\. Make room"):
        synthesize("dfew", tmp_path / "set", workers=1, **SMALL)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="set cannot be written: Not a directory"):
        synthesize("dfew", tmp_path / "file" / "set", workers=1, **SMALL)


@pytest.mark.parametrize("damaged", ["", "{", "3", "null"])
def test_a_damaged_marker_is_told(damaged, tmp_path):
    (tmp_path / "synthetic.json").write_text(damaged)
    with pytest.raises(InputError, match=r"synthetic\.json is damaged"):
        synthesize("dfew", tmp_path, workers=1, **SMALL)


def test_refuses_its_own_folder_with_other_arguments(dfew):
    before = digest(dfew)
    with pytest.raises(InputError, match="seed: there 0, asked 7"):
        synthesize("dfew", dfew, seed=7, **SMALL)
    assert digest(dfew) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"clips": 34},
        {"size": 8},
        {"seed": -1},
        {"workers": 0},
        {"frames": (9, 5)},
        {"shown": (0.0, 0.5)},
        {"strength": (0.5, 2.0)},
        {"pose": 45},
        {"holdout": "actors"},
        {"balance": "fair"},
        {"layout": "affwild"},
    ],
)
def test_refuses_arguments_out_of_range_and_writes_nothing(wrong, tmp_path):
    arguments = {"layout": "dfew", **SMALL, **wrong}
    with pytest.raises(InputError, match=next(iter(wrong))):
        synthesize(root=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_dfew_layout(dfew):
    splits = dfew / "EmoLabel_DataSplit"
    everything = Counter()
    for fold in range(1, 6):
        rows = {}
        for part in ("train", "test"):
            lines = (splits / f"{part}(single-labeled)" / f"set_{fold}.csv").read_text().splitlines()
            assert lines[0] == "video_name,label"
            rows[part] = dict(line.split(",") for line in lines[1:])
            assert all(name == str(int(name)) for name in rows[part])  # not padded
            assert set(rows[part].values()) <= set("1234567")
        assert not rows["train"].keys() & rows["test"].keys()
        assert len(rows["train"]) + len(rows["test"]) == SMALL["clips"]
        assert len(set(rows["test"].values())) == 7
        everything.update(rows["test"].keys())
        for name, label in rows["test"].items():
            mine = table(dfew)[int(name) - 1]
            assert (mine["label"], mine["fold"]) == (EMOTIONS[int(label) - 1], str(fold))
    assert set(everything.values()) == {1}  # the test folds partition the clips
    for name in everything:
        files = sorted((dfew / "Clip" / "clip_224x224" / name.zfill(5)).iterdir())
        assert 4 <= len(files) <= 6
        assert all(cv2.imread(str(file)).shape == (32, 32, 3) for file in files)


def test_ferv39k_layout(ferv):
    lines = {
        part: (ferv / "4_setups" / "All_scenes" / f"{part}_All.csv").read_text().splitlines()
        for part in ("train", "test")
    }
    assert len(lines["train"]) + len(lines["test"]) == len({*lines["train"], *lines["test"]}) == SMALL["clips"]
    gaps = 0
    for line in lines["train"] + lines["test"]:
        path, label = line.split(" ")
        scene, emotion, number = path.split("/")
        assert emotion == label in EMOTIONS
        assert scene in SCENES
        assert len(number) == 4
        names = [file.stem for file in (ferv / "2_ClipsforFaceCrop" / path).iterdir()]
        assert all(name == str(int(name)) for name in names)
        numbers = sorted(map(int, names))
        gaps += numbers[-1] - numbers[0] + 1 > len(numbers)
    assert gaps
    assert {line.split(" ")[1] for line in lines["test"]} == set(EMOTIONS)


@pytest.mark.parametrize("layout", ["dfew", "ferv39k"])
def test_people_do_not_cross_folds(layout):
    plan = make_plan(layout, 500, 3, "auto", (16, 40))
    folds = {}
    for clip in plan:
        assert folds.setdefault(clip.person, clip.fold) == clip.fold
    assert len(folds) > 40


@pytest.mark.parametrize(("layout", "number"), [("dfew", 5), ("ferv39k", 20)])
def test_sources_held_out_do_not_cross_folds(layout, number):
    shared, apart = (make_plan(layout, 500, 3, "auto", (16, 40), holdout) for holdout in ("people", "sources"))
    folds = {clip.source: clip.fold for clip in apart}
    assert len(folds) == number
    assert all(folds[clip.source] == clip.fold for clip in apart)
    assert len({(clip.source, clip.fold) for clip in shared}) > number


@settings(deadline=None)
@given(
    clips=st.integers(35, 20000),
    layout=st.sampled_from(["dfew", "ferv39k"]),
    balance=st.sampled_from(["auto", "natural", "mild", "uniform"]),
)
def test_class_counts(clips, layout, balance):
    counts = class_counts(layout, clips, balance)
    assert sum(counts) == clips
    assert min(counts) >= 5
    if balance in ("auto", "mild") and clips >= 350:
        assert min(counts) >= 50
    if balance == "uniform":
        assert max(counts) - min(counts) <= 1
    if balance == "natural" and clips >= 10000:
        natural = np.array(class_counts(layout, 10000, "natural")) / 10000
        assert np.abs(np.array(counts) / clips - natural).max() < 0.001


def test_every_test_fold_has_its_share_of_every_class():
    plan = make_plan("dfew", 700, 0, "auto", (16, 40))
    counts = Counter((clip.fold, clip.emotion) for clip in plan)
    assert min(counts.values()) >= 10
    assert len(counts) == 35


def test_each_emotion_moves_the_face_away_from_rest_and_from_the_others():
    rig = load_rig()
    habits = draw_habits(np.random.default_rng(0))
    moved = {
        emotion: np.einsum("a,avc->vc", actions_of(PROTOTYPES[emotion][0], habits, rig.action_names), rig.actions)
        for emotion in EMOTIONS
    }
    assert not moved["Neutral"].any()
    for emotion in EMOTIONS:
        for other in EMOTIONS:
            if emotion != other:
                assert np.linalg.norm(moved[emotion] - moved[other], axis=1).max() > 0.003, (emotion, other)


def test_expression_is_seen_in_the_pictures():
    """Frames at the apex differ from frames before the onset by more than frames before the onset among themselves."""
    from dfer_zoo.synthetic.render import render_clip
    from dfer_zoo.synthetic.scene import draw_shot, draw_source

    rig = load_rig()
    person = draw_person(rig, np.random.default_rng(4))
    for emotion in EMOTIONS:
        rng = np.random.default_rng(1)
        act = perform(emotion, 12, draw_habits(rng), rig.action_names, rng, shown=(0.5, 0.6), strength=(1.0, 1.0))
        source = draw_source(rng)
        shot = draw_shot(12, 96, source, person.skin, 7, rng)
        still = type(shot)(
            **{**vars(shot), "angles": shot.angles[:1].repeat(12, 0), "place": shot.place[:1].repeat(12, 0)}
        )
        frames = np.stack(render_clip(person, act, still, source, [], 64, rng)).astype(float)
        change = np.abs(np.diff(frames, axis=0)).mean()
        apex, rest = frames[act.shown.argmax()], frames[act.shown.argmin()]
        if emotion != "Neutral":
            assert act.shown.max() > 0.9
            assert np.abs(apex - rest).mean() > 1.1 * change, emotion


@given(emotion=st.sampled_from(EMOTIONS), frames=st.integers(4, 80), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_performances_are_in_range(emotion, frames, seed):
    rng = np.random.default_rng(seed)
    act = perform(emotion, frames, draw_habits(rng), load_rig().action_names, rng)
    assert act.actions.shape == (frames, 52)
    assert act.gaze.shape == (frames, 2)
    assert act.head.shape == (frames, 3)
    assert np.isfinite(act.actions).all()
    assert act.actions.min() >= 0
    assert act.actions.max() <= 2.2
    assert (act.shown.max() > 0) == (emotion != "Neutral")


def test_surprise_rises_fast_and_fear_slowly():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        surprise, fear = (draw_timing(emotion, 30, (0.5, 1.0), rng) for emotion in ("Surprise", "Fear"))
        assert surprise.apex - surprise.onset < 0.25 * (surprise.end - surprise.offset)
        assert fear.end - fear.offset < 0.25 * (fear.apex - fear.onset)


def test_envelope():
    level = Timing(2, 4, 6, 10).envelope(12)
    assert level.tolist() == pytest.approx([0, 0, 0, 0.5, 1, 1, 1, 0.84375, 0.5, 0.15625, 0, 0])


def test_rig_file():
    assert RIG_FILE.stat().st_size <= 8 * 2**20
    rig = load_rig()
    assert len(rig.action_names) == len(rig.actions) == 52
    # Triangles are counter-clockwise from outside: the skin of the front of the face looks forward.
    front = (np.abs(rig.mean[:, 0]) < 0.05) & (rig.mean[:, 1] > 0.02) & (rig.mean[:, 1] < 0.06) & (rig.mean[:, 2] > 0)
    facing = face_normals(rig.mean, rig.triangles[front[rig.triangles].all(1)])
    assert (facing[:, 2] > 0).mean() > 0.98
    # Eyes are where the coordinates say, the mouth below them.
    assert rig.mean[rig.of("left_eye"), 0].mean() > 0.02 > -0.02 > rig.mean[rig.of("right_eye"), 0].mean()
    assert rig.mean[rig.lips > 0.5, 1].mean() < -0.04


def test_gaze_turns_the_eyes_and_nothing_else():
    rig = load_rig()
    person = draw_person(rig, np.random.default_rng(0))
    act = perform("Neutral", 4, draw_habits(np.random.default_rng(0)), rig.action_names, np.random.default_rng(0))
    still = type(act)(**{**vars(act), "actions": act.actions * 0, "gaze": np.array([[0, 0], [20, 0], [0, 20], [0, 0]])})
    rest, left, up, again = deform(rig, person, still)
    assert np.array_equal(rest, again)
    eye = rig.of("left_eye")
    other = ~eye & ~rig.of("right_eye")
    assert np.array_equal(rest[other], left[other])
    pole = np.flatnonzero(eye)[rest[eye, 2].argmax()]
    assert left[pole, 0] > rest[pole, 0] + 0.003
    assert up[pole, 1] > rest[pole, 1] + 0.003


def test_rasteriser_against_point_in_triangle():
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-4, 28, (60, 2))
    depth = rng.normal(size=60)
    triangles = rng.integers(0, 60, (25, 3))
    ids, x, y = rasterise(pixels, depth, triangles, 24, cull=False)
    expected = np.full((24, 24), -1)
    for triangle in np.argsort(depth[triangles].sum(1), kind="stable"):
        a, b, c = pixels[triangles[triangle]]
        cross = lambda p, q, r: (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])  # noqa: E731
        if cross(a, b, c) == 0:
            continue
        for row in range(24):
            for column in range(24):
                sides = [cross(p, q, (column, row)) for p, q in ((a, b), (b, c), (c, a))]
                if min(sides) >= 0 or max(sides) <= 0:
                    expected[row, column] = triangle
    found = np.full((24, 24), -1)
    found[y, x] = ids
    assert (found == expected).all()


def test_normals_of_a_plane():
    grid = np.array([[x, y, 0.0] for y in range(3) for x in range(3)])
    triangles = np.array([[i, i + 1, i + 4] for i in (0, 1, 3, 4)] + [[i, i + 4, i + 3] for i in (0, 1, 3, 4)])
    assert np.allclose(vertex_normals(grid, triangles), [0, 0, 1])


def test_generating_never_imports_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from dfer_zoo.synthetic import synthesize\n"
        "from dfer_zoo.synthetic.dataset import Job, render_to_disk\n"
        "from dfer_zoo.synthetic.plan import Clip\n"
        f"job = Job('dfew', Path({str(tmp_path)!r}), 0, 32, (0.5, 1.0), (0.5, 1.0), 7.0)\n"
        "render_to_disk(job, (Clip(0, 'Happy', 0, 0, 0, 4), '00001'))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert len(list((tmp_path / "00001").iterdir())) == 4
