"""From a file to a table of segments: the right frames, the right people, bounded memory, plain messages."""

import json
import re
import textwrap
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_checkpoint
from films import BLUE, GREEN, RED, ColorModel, find, render_faces, scene, write_film
from hypothesis import given, settings
from hypothesis import strategies as st
from test_locks import held

import dfer_zoo
from dfer_zoo.__main__ import main
from dfer_zoo.data import sampling
from dfer_zoo.data.reading import timed_frames
from dfer_zoo.data.transforms import Evaluation
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.models import Baseline
from dfer_zoo.video import command
from dfer_zoo.video.cropping import Span, crop
from dfer_zoo.video.drawing import Annotation, clock, draw_video, strongest, unbroken
from dfer_zoo.video.footage import Footage, look_through
from dfer_zoo.video.recognition import classify, recognize, window_and_stride
from dfer_zoo.video.windows import clips, cut_into_windows, plan


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds: red all the time, moving; green from 2 s to 4 s and from 5 s on; blue for the last 3 s."""
    frames = []
    for number in range(100):
        time = number / 10
        faces = [(RED, 30 + 2 * time, 30, 30)]
        if 2 <= time < 4 or time >= 5:
            faces.append((GREEN, 110, 40, 26))
        if time >= 7:
            faces.append((BLUE, 60, 90, 34))
        frames.append(scene(*faces))
    return write_film(tmp_path_factory.mktemp("film") / "three people.mp4", frames)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of red."""
    return write_film(tmp_path_factory.mktemp("short") / "one person.mp4", [scene((RED, 60, 60, 40))] * 20)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A film whose frames are shown for very different times; the face grows from frame to frame."""
    times = np.cumsum([0.0, *np.random.default_rng(0).choice([0.02, 0.05, 0.3], 39)]).round(3).tolist()
    frames = [scene((RED, 60 + number, 60, 30 + number)) for number in range(40)]
    return write_film(tmp_path_factory.mktemp("uneven") / "uneven.mp4", frames, times), times


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ColorModel:
    """Let the command line load a model that knows colours."""
    model = ColorModel()
    monkeypatch.setattr(command, "load_model", lambda checkpoint: model)
    return model


def test_the_command_line_classifies_with_batch_norm_folded(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.ckpt", Baseline("r3d_18", frames=4, width=4, pretrained=False))
    assert not [module for module in command.load_model(path).modules() if isinstance(module, torch.nn.BatchNorm3d)]


def run(*words: object) -> int:
    return main(["recognize", *map(str, words), "--checkpoint", "model.ckpt", "--detector", "films:find"])


def segments(video: Path, **options: object) -> pd.DataFrame:
    return recognize(video, ColorModel(), **{"detector": find, "window": 1.0, **options})


def test_times_of_frames_are_the_files_own(uneven: tuple[Path, list[float]]) -> None:
    path, times = uneven
    assert [time for time, _ in timed_frames(str(path))] == pytest.approx(times, abs=2e-3)


def test_people_are_found_when_they_are_there(film: Path) -> None:
    table = segments(film)
    assert table.columns.tolist() == ["person", "start", "end", "label", "confidence", *EMOTIONS]
    said = {person: set(rows["label"]) for person, rows in table.groupby("person")}
    assert said == {1: {"Happy"}, 2: {"Sad"}, 3: {"Neutral"}}
    for person, seen in {1: [(0, 10)], 2: [(2, 4), (5, 10)], 3: [(7, 10)]}.items():
        rows = table[table["person"] == person]
        stretches = [(rows["start"].iloc[first], rows["end"].iloc[last - 1]) for first, last in unbroken(rows)]
        np.testing.assert_allclose(stretches, seen, atol=0.11)  # half a look
    np.testing.assert_allclose(table[list(EMOTIONS)].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(table["confidence"], table[list(EMOTIONS)].max(axis=1))


def test_a_detector_by_name_and_windows_of_ones_own(film: Path) -> None:
    table = segments(film, detector="films:find", window=2.0, stride=0.5)
    red = table[table["person"] == 1]
    np.testing.assert_allclose(red["end"] - red["start"], 2)
    np.testing.assert_allclose(np.diff(red["start"]), 0.5)
    whole = recognize(film, ColorModel(), detector="whole")
    assert set(whole["person"]) == {1}


def test_clips_are_the_crops_at_the_middles_of_equal_parts(uneven: tuple[Path, list[float]]) -> None:
    path, _ = uneven
    footage = look_through(path, find)
    windows = plan(footage, seconds=1.2, stride=0.5, frames=5)
    assert len(windows) > 3
    pictures = [frame() for _, frame in timed_frames(str(path))]
    made = dict(clips(footage, windows, 20))
    assert sorted(made) == list(range(len(windows)))
    for number, window in enumerate(windows):
        expected = []
        for part in range(5):
            moment = window.start + (part + 0.5) / 5 * (window.end - window.start)
            shown = max(index for index, time in enumerate(footage.times) if time <= moment)
            expected.append(crop(pictures[shown], window.span.square(footage.times[shown])))
        np.testing.assert_array_equal(made[number], Evaluation(20)(expected))


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 20), st.sampled_from([10, 24, 25, 30, 60]))
def test_at_a_constant_rate_the_frames_are_those_of_evaluation(count: int, frames: int, fps: int) -> None:
    span = Span(0.0, count / fps, np.zeros(1), np.array([[0.0, 0, 10, 0]]))
    times = np.arange(count) / fps + 1e-9
    footage = Footage(Path("film"), times, count / fps, np.zeros(1), [[span]], 0, (10, 10))
    (window,) = plan(footage, seconds=100, stride=50, frames=frames)
    middles = (np.arange(frames) + 0.5) * count / frames
    exact = np.abs(middles - middles.round()) > 1e-6  # where the middle falls between two frames, either is right
    expected = sampling.centred(count, frames)
    np.testing.assert_array_equal(window.frames[exact], expected[exact])
    assert (np.abs(window.frames - expected) <= 1).all()


@given(st.floats(0, 1e4), st.floats(0, 1e3), st.floats(0.1, 20), st.floats(0.1, 1))
def test_windows_cover_all_time_evenly(start: float, length: float, seconds: float, share: float) -> None:
    windows = np.array(cut_into_windows(start, start + length, seconds, share * seconds))
    assert windows[0, 0] == start
    assert windows[-1, 1] == pytest.approx(start + length)
    if length > seconds:
        np.testing.assert_allclose(windows[:, 1] - windows[:, 0], seconds, rtol=1e-6)
        steps = np.diff(windows[:, 0])
        assert steps.max() <= share * seconds * (1 + 1e-4) + 1e-6
        assert len(windows) <= (length - seconds) / (share * seconds) + 2.01
        np.testing.assert_allclose(steps, steps[0], atol=1e-6 * (1 + start))


def test_batches_and_single_windows_say_the_same(film: Path) -> None:
    footage = look_through(film, find)
    windows = plan(footage, 1.0, 0.5, 4)
    model, alone = ColorModel(), ColorModel()
    pd.testing.assert_frame_equal(classify(model, footage, windows, 8), classify(alone, footage, windows, 1))
    assert [len(video) for video in model.seen][:-1] == [8] * (len(windows) // 8)
    assert len(alone.seen) == len(windows)


def test_a_still_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), scene((RED, 40, 40, 30), (BLUE, 110, 70, 40))[..., ::-1])
    table = segments(path)
    assert table[["person", "start", "end", "label"]].to_numpy().tolist() == [
        [1, 0.0, 0.0, "Happy"],
        [2, 0.0, 0.0, "Neutral"],
    ]


def test_a_film_of_one_frame(tmp_path: Path) -> None:
    table = segments(write_film(tmp_path / "short.mp4", [scene((GREEN, 80, 60, 50))]))
    assert table["label"].tolist() == ["Sad"]


def test_a_cut_to_somebody_in_the_same_place_is_somebody_else(tmp_path: Path) -> None:
    before = [scene((RED, 80, 60, 50))] * 10
    after = [np.where(scene((GREEN, 80, 60, 50)) == 90, np.uint8(200), scene((GREEN, 80, 60, 50)))] * 10
    table = segments(write_film(tmp_path / "cut.mp4", [*before, *after]), window=0.5)
    assert table.groupby("person")["label"].unique().map(list).tolist() == [["Happy"], ["Sad"]]
    assert table[["start", "end"]].to_numpy()[[0, -1]].ravel() == pytest.approx([0, 0.5, 1.5, 2.0])
    assert 0.75 <= table["end"][table["person"] == 1].max() <= 1.0 <= table["start"][table["person"] == 2].min()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0.0}, "window is 0.0 seconds; allowed: 0.1 or more"),
        ({"window": float("nan")}, "window is nan"),
        ({"stride": 5.0}, "stride is 5.0 seconds; allowed: 0.05 to the window's 2.8"),
        ({"stride": 0.0}, "stride is 0.0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        window_and_stride({"data": "DFEW"}, **{"window": None, "stride": None, "batch_size": 1, **options})


def test_the_default_window_is_the_training_clips() -> None:
    assert window_and_stride({"data": "DFEW"}, None, None, 1) == (2.8, 1.4)
    assert window_and_stride({"data": "FERV39k"}, None, None, 1) == (1.1, 0.55)


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    peaks = []
    for frames in (60, 460):
        pictures = (scene((RED, 40 + number % 40, 60, 40), (BLUE, 120, 60, 40)) for number in range(frames))
        path = write_film(tmp_path / f"{frames}.mp4", list(pictures))
        tracemalloc.start()
        footage = look_through(path, find)
        windows = plan(footage, 2.0, 1.0, 8)
        for _ in clips(footage, windows, 64):
            pass
        table = pd.DataFrame({"person": 1, "label": "Happy", "confidence": 1.0}, index=range(len(windows)))
        annotation = Annotation(footage, windows, table, "ColorModel")
        for _ in draw_video(annotation, dict(enumerate(windows)), tmp_path / "annotated.mp4"):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 400 frames more are 23 MB of pixels, and as clips 9 MB
    assert peaks[1] - peaks[0] < 1.5e6


def test_the_documented_three_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("facenet_pytorch")
    monkeypatch.chdir(tmp_path)
    face = cv2.resize(render_faces(tmp_path, 1)[0], (150, 150), interpolation=cv2.INTER_AREA)
    picture = np.full((240, 320, 3), 100, np.uint8)
    picture[40:190, 90:240] = face
    write_film(tmp_path / "clip.mp4", [picture] * 8)
    model = Baseline("r3d_18", frames=4, width=4, pretrained=False)
    spec = {"version": "0", "model": "Baseline", "labels": list(EMOTIONS), "frames": 4, "size": 32, "data": "DFEW"}
    content = {"dfer_zoo": spec, "hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}
    torch.save(content, tmp_path / "best_val.ckpt")
    (example,) = re.findall(r"Example::\n\n((?: {8}.*\n)+)", recognize.__doc__)
    names: dict[str, object] = {}
    exec(textwrap.dedent(example), names)
    table = names["table"]
    assert table[["person", "start"]].to_numpy().tolist() == [[1, 0]]
    assert table["end"].tolist() == pytest.approx([0.8])
    assert table["label"].iloc[0] in EMOTIONS


def test_names_of_the_package_are_lazy() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        dfer_zoo.lode  # noqa: B018


def test_a_video_that_breaks_off_says_so(fake: ColorModel, tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    noisy = [
        np.where(frame == 90, rng.integers(60, 120, frame.shape, np.uint8), frame)
        for frame in [scene((RED, 80, 60, 50))] * 60
    ]
    whole = write_film(tmp_path / "whole.mkv", noisy)
    (tmp_path / "half.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert run(tmp_path / "half.mkv", whole, "--out", tmp_path / "out", "--annotate", "false") == 0
    printed = capsys.readouterr().out
    assert printed.count("is it complete?") == 1
    assert re.search(r"half\.mkv says that it lasts 6\.0 s, but its pictures end after [23]\.\d s", printed)


def test_command_writes_all_it_promises(film: Path, fake: ColorModel, tmp_path: Path, capsys) -> None:
    still = tmp_path / "still.png"
    cv2.imwrite(str(still), scene((BLUE, 40, 40, 30))[..., ::-1])
    empty = write_film(tmp_path / "nobody.mp4", [scene()] * 12)
    out = tmp_path / "out"
    assert run(film, still, empty, "--out", out, "--window", 1) == 0
    printed = capsys.readouterr().out
    assert "ColorModel, trained on Colors. It estimates apparent expression, not what a person feels." in printed
    assert "still.png: 1 of 1 frames looked at, a still picture as a clip of one frame" in printed
    assert "nobody.mp4: no face found, 7 of 12 frames looked at" in printed
    written = {str(path.relative_to(out)) for path in out.rglob("[!.]*") if path.is_file()}
    parts = ("timeline.csv", "timeline.json", "timeline.png", "moments.png")
    assert written == {
        *(f"three people/person{person}/{part}" for person in (1, 2, 3) for part in parts),
        *(f"still/person1/{part}" for part in parts if part != "timeline.png"),
        "still/annotated.png",
        "three people/annotated.mp4",
        *(f"{name}/recognition.json" for name in ("three people", "still", "nobody")),
    }
    expected = segments(film)
    for person in (1, 2, 3):
        rows = expected[expected["person"] == person].reset_index(drop=True)
        folder = out / "three people" / f"person{person}"
        pd.testing.assert_frame_equal(pd.read_csv(folder / "timeline.csv"), rows, atol=1e-3, check_dtype=False)
        content = json.loads((folder / "timeline.json").read_text())
        assert content["says"] == ("Happy", "Sad", "Neutral")[person - 1]
        assert content["notice"].startswith("It estimates apparent expression")
        assert [row["label"] for row in content["segments"]] == rows["label"].tolist()
    summary = json.loads((out / "nobody" / "recognition.json").read_text())
    assert (summary["people"], summary["frames"], summary["frames_looked_at"]) == ([], 12, 7)


def test_annotated_video_keeps_times_and_marks_people(uneven, fake: ColorModel, tmp_path: Path) -> None:
    path, times = uneven
    assert run(path, "--out", tmp_path / "out") == 0
    with av.open(str(tmp_path / "out" / "uneven" / "annotated.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        said = "ColorModel, trained on Colors. It estimates apparent expression, not what a person feels."
        assert container.metadata["comment"] == said
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx(times, abs=2e-3)
    footage = look_through(path, find)
    for number in (5, 30):
        square = footage.people[0][0].square(footage.times[number])
        picture = frames[number].to_ndarray(format="rgb24").astype(int)
        left, middle = round(square.x - square.side / 2), round(square.y)
        blueness = picture[..., 2] - picture[..., 0]
        assert blueness[middle, left - 2 : left + 3].max() > 40  # the square's left line
        assert blueness[middle, left + 6 : left + 12].max() < 40  # the face within
        lowest = picture[-8:].mean(2)
        assert (lowest < 40).mean() > 0.3  # a caption, light on dark
        assert lowest.max() > 150


def test_no_face_anywhere_is_status_1(fake: ColorModel, tmp_path: Path) -> None:
    assert run(write_film(tmp_path / "nobody.mp4", [scene()] * 3), "--out", tmp_path / "out") == 1


def test_the_same_words_leave_what_is_done_and_others_are_refused(
    short: Path, fake: ColorModel, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    assert run(short, "--out", out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    fake.seen.clear()
    assert run(short, "--out", out) == 0
    assert "(done before)" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert not fake.seen
    assert run(short, "--out", out, "--window", 2) == 2
    assert "window: there 2.8, asked 2.0" in capsys.readouterr().err
    (out / "other").mkdir()
    other = write_film(tmp_path / "other.mp4", [scene()] * 3)
    assert run(other, "--out", out) == 2
    assert "other exists and was not written by `recognize`" in capsys.readouterr().err


def test_what_was_interrupted_leaves_nothing_and_is_done_again(
    short: Path, fake: ColorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(command, "draw_timeline", stop)
        assert run(short, "--out", tmp_path / "out") == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".one person.lock"]
    leftover = tmp_path / "out" / ".one person.part"  # of a process that was killed
    leftover.mkdir()
    (leftover / "half").touch()
    assert run(short, "--out", tmp_path / "out", "--annotate", "false") == 0
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".lock"] == ["one person"]
    assert not (tmp_path / "out" / "one person" / "annotated.mp4").exists()


def test_two_processes_do_not_do_the_same_video(short: Path, fake: ColorModel, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    part = out / ".one person.part"
    other = write_film(tmp_path / "other.mp4", [scene((RED, 60, 60, 40))] * 3)
    with held(out, ".one person.lock") as process:
        part.mkdir()  # what the other process has written so far
        assert run(short, "--out", out, "--annotate", "false") == 2
        assert f"by process {process.pid}" in " ".join(capsys.readouterr().err.split())
        assert part.exists()
        assert run(other, "--out", out, "--annotate", "false") == 0
    assert run(short, other, "--out", out, "--annotate", "false") == 0


def test_a_full_disk_is_one_line(short: Path, fake: ColorModel, tmp_path: Path, monkeypatch, capsys) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "draw_timeline", full)
    assert run(short, "--out", tmp_path / "out", "--annotate", "false") == 2
    assert "one person cannot be written: No space left on device" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".one person.lock"]
    (tmp_path / "file").touch()
    assert run(short, "--out", tmp_path / "file" / "out") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_bad_files_are_named_and_the_others_done(short: Path, fake: ColorModel, tmp_path: Path, capsys) -> None:
    sound = tmp_path / "sound.mkv"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    corrupt = tmp_path / "corrupt.mp4"
    corrupt.write_bytes(short.read_bytes()[:900])
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(b"no picture")
    assert run(sound, corrupt, picture, tmp_path / "gone.mp4", short, "--out", tmp_path / "out") == 2
    printed = "".join(capsys.readouterr())
    for message in (
        "sound.mkv has no video stream",
        "corrupt.mp4 is not a video that FFmpeg can read",
        "picture.jpg (10 bytes) is no picture that can be read. Is the file complete?",
        "There is no file",
        "one person.mp4: 11 of 20 frames looked at",
    ):
        assert message in printed
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".lock"] == ["one person"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recognize", "--checkpoint", "model.ckpt"], "No videos given"),
        (["recognize", "a.mp4"], "needs --checkpoint"),
        (["recognize", "a.mp4", "--checkpoint", "model.ckpt"], "There is no checkpoint model.ckpt"),
    ],
)
def test_wrong_words(words: Sequence[str], message: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_names_of_folders() -> None:
    assert command.names([Path("a.mp4"), Path("b/c.mov"), Path("c.mp4")]) == ["a", "c-mov", "c-mp4"]
    with pytest.raises(InputError, match=r"Several files would write to a-mp4"):
        command.names([Path("a.mp4"), Path("b/a.mp4")])


def test_the_strongest_moments_do_not_overlap() -> None:
    starts = np.arange(0, 10, 0.5)
    confidence = np.random.default_rng(0).permutation(len(starts)) / 20
    table = pd.DataFrame({"start": starts, "end": starts + 1.0, "confidence": confidence})
    chosen = table.loc[strongest(table, 4)]
    assert len(chosen) == 4
    assert (chosen["start"].to_numpy()[1:] >= chosen["end"].to_numpy()[:-1]).all()
    assert confidence.argmax() in chosen.index
    for index, row in table.drop(chosen.index).iterrows():  # each of the others overlaps a stronger one or is weaker
        overlapping = chosen[(chosen["start"] < row["end"]) & (row["start"] < chosen["end"])]
        assert index is not None
        assert (overlapping["confidence"] > row["confidence"]).any() or row["confidence"] < chosen["confidence"].min()


def test_times_are_printed_for_people() -> None:
    assert [clock(value) for value in (0, 59.94, 61.5, 3599.99)] == ["0.0 s", "59.9 s", "1:01.5", "1:00:00.0"]


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file .*gone\.mp4"):
        segments(tmp_path / "gone.mp4")
