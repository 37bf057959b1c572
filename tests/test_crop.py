"""Labelled videos become clips that `Clips` reads: who is kept, why others are not, nothing done twice."""

import json
import os
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from films import BLUE, GREEN, RED, find, scene, write_film
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_locks import held

from dfer_zoo.__main__ import main
from dfer_zoo.data import Clips
from dfer_zoo.data.reading import read_image
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.video import dataset
from dfer_zoo.video.labels import READERS, crema_d, ravdess


def crop(*words: object) -> int:
    return main(["crop", *map(str, words), "--detector", "films:find", "--workers", "1"])


def film(path: Path, *colors: tuple[int, int, int], frames: int = 6) -> Path:
    """A film of people side by side, the first the largest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    faces = [(color, 40 + 70 * i, 60, 50 - 20 * i) for i, color in enumerate(colors)]
    return write_film(path, [scene(*faces)] * frames)


def report(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "report.csv", index_col="clip")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A csv of six videos, of which three can be used."""
    source = tmp_path / "source"
    film(source / "good" / "red.mp4", RED)
    film(source / "two faces.mp4", GREEN, BLUE)
    film(source / "nobody.mp4")
    seldom = [scene((RED, 60, 60, 40))] * 6 + [scene()] * 14
    write_film(source / "seldom.mp4", seldom)
    (source / "broken.mp4").write_bytes(b"no video")
    film(source / "blue.mkv", BLUE)
    rows = ["good/red.mp4,Happy,train", "two faces.mp4,1,test", "nobody.mp4,Fear,train", "seldom.mp4,Sad,train"]
    rows += ["broken.mp4,Sad,test", "gone.mp4,Sad,test", "blue.mkv,Neutral,train"]
    (source / "videos.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    return source / "videos.csv"


def test_a_csv_of_videos_becomes_clips(videos: Path, tmp_path: Path, capsys) -> None:
    root = tmp_path / "clips"
    assert crop(videos, "--out", root) == 0
    assert "3 of 7 videos kept" in capsys.readouterr().out
    data = Clips(str(root), frames=4, size=24)
    assert data.read_split("train").to_numpy().tolist() == [["clips/blue", 2], ["clips/good/red", 0]]
    assert data.read_split("test").to_numpy().tolist() == [["clips/two faces", 1]]
    clips = data.dataset("predict")
    for index, name in enumerate(clips.names):
        colors = clips.clip(index).reshape(-1, 3).mean(0)  # the face, and of the two the larger one
        assert colors.argmax() == {"clips/blue": 2, "clips/good/red": 0, "clips/two faces": 1}[name]
        assert colors.max() > 150
    table = report(root)
    why = table["why"].fillna("")
    assert why["clips/nobody"] == "no face in 4 frames looked at"
    assert why["clips/seldom"] == "seen in 30 % of the frames, less than 50 %"
    assert "is not a video" in why["clips/broken"]
    assert why["clips/gone"] == "there is no such file"
    assert table["kept"].to_dict() == {clip: not reason for clip, reason in why.items()}
    assert table.loc["clips/two faces", ["frames", "kept_frames", "faces"]].tolist() == [6, 6, 2]
    assert table.loc["clips/good/red", "face_pixels"] == pytest.approx(53, abs=3)


def test_all_frames_of_the_person_are_there_and_no_others(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", [scene((RED, 60, 60, 40))] * 28 + [scene()] * 12, fps=24)
    assert crop(path, "--out", tmp_path / "out") == 0
    frames = sorted((tmp_path / "out" / "clips" / "a").glob("*.jpg"))
    assert [frame.name for frame in frames[:2]] == ["00001.jpg", "00002.jpg"]
    assert len(frames) == 28  # seen in 25, not in 30
    pictures = [read_image(frame) for frame in frames]
    assert {picture.shape for picture in pictures} == {(224, 224, 3)}
    # the square is 1.06 times the face, which is in its middle but for what the eyes say
    assert all(np.abs(picture[60:180, 60:160].mean(axis=(0, 1)) - RED).max() < 12 for picture in pictures)


def test_what_is_done_is_kept_and_what_is_missing_is_made(videos: Path, tmp_path: Path, monkeypatch) -> None:
    root = tmp_path / "clips"
    assert crop(videos, "--out", root) == 0
    tables = [(root / name).read_bytes() for name in ("clips.csv", "report.csv")]
    (root / "clips" / "blue" / "clip.json").unlink()  # as if it had been interrupted
    (root / "clips" / ".blue.part").mkdir()
    looked = []
    look_through = dataset.look_through
    monkeypatch.setattr(
        dataset, "look_through", lambda path, *rest: looked.append(path.name) or look_through(path, *rest)
    )
    assert crop(videos, "--out", root) == 0
    assert looked == ["blue.mkv", "broken.mp4", "nobody.mp4", "seldom.mp4"]  # dropped ones may have been mended
    assert [(root / name).read_bytes() for name in ("clips.csv", "report.csv")] == tables
    assert not (root / "clips" / ".blue.part").exists()


@pytest.mark.slow
def test_several_processes_do_the_same(videos: Path, tmp_path: Path) -> None:
    assert crop(videos, "--out", tmp_path / "one") == 0
    assert main(["crop", str(videos), "--out", str(tmp_path / "two"), "--detector", "films:find", "--workers=2"]) == 0
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "one", tmp_path / "two")
    ]
    assert files[0] == files[1]


def test_crema_d_and_its_folds(tmp_path: Path) -> None:
    names = [f"{actor}_IEO_{emotion}_XX" for actor in range(1001, 1007) for emotion in ("HAP", "DIS")]
    for name in names:
        film(tmp_path / "set" / f"{name}.mp4", RED, frames=3)
    film(tmp_path / "set" / "notes.mp4", RED, frames=3)
    root = tmp_path / "out"
    assert crop(tmp_path / "set", "--out", root, "--labels", "crema-d") == 0
    assert report(root).loc["clips/notes", "why"] == "the name is not crema-d's"
    assert pd.read_csv(root / "clips.csv").columns.tolist() == ["path", "label", "split", "fold", "person"]
    persons = []
    for fold in range(1, 6):
        data = Clips(str(root), fold=fold)
        parts = [{name[6:10] for name in data.read_split(split)["name"]} for split in ("train", "test")]
        assert not parts[0] & parts[1]
        assert len(data.read_split("train")) + len(data.read_split("test")) == 12
        persons.extend(parts[1])
        assert data.run_name == f"clips-fold{fold}"
    assert sorted(persons) == [str(actor) for actor in range(1001, 1007)]
    by_split, by_fold = Clips(str(root)).read_split("test"), Clips(str(root), fold=1).read_split("test")
    pd.testing.assert_frame_equal(by_split, by_fold)
    with pytest.raises(Exception, match=r"no fold 7; its folds are 1, 2, 3, 4, 5"):
        Clips(str(root), fold=7).read_split("test")


def test_ravdess_drops_calm_and_the_second_copy_of_the_pictures(tmp_path: Path) -> None:
    for name in ("01-01-03-01-01-01-01", "02-01-03-01-01-01-01", "02-01-02-01-01-01-01", "02-01-08-02-01-01-02"):
        film(tmp_path / "set" / f"Actor_{name[-2:]}" / f"{name}.mp4", RED, frames=3)
    root = tmp_path / "out"
    assert crop(tmp_path / "set", "--out", root, "--labels", "ravdess") == 0
    why = report(root)["why"].fillna("").to_dict()
    assert why == {
        "clips/Actor_01/01-01-03-01-01-01-01": "",
        "clips/Actor_01/02-01-03-01-01-01-01": "the same pictures as Actor_01/01-01-03-01-01-01-01.mp4",
        "clips/Actor_01/02-01-02-01-01-01-01": "calm has no counterpart among the seven emotions",
        "clips/Actor_02/02-01-08-02-01-01-02": "",
    }
    assert pd.read_csv(root / "clips.csv")["label"].tolist() == ["Happy", "Surprise"]


def test_every_name_of_the_sets_is_read() -> None:
    emotions = {"ANG": "Angry", "DIS": "Disgust", "FEA": "Fear", "HAP": "Happy", "NEU": "Neutral", "SAD": "Sad"}
    for actor, (code, label), level in product(range(1001, 1092), emotions.items(), ("LO", "MD", "HI", "XX")):
        named = crema_d(f"{actor}_TAI_{code}_{level}")
        assert (named.label, named.person, named.why_not) == (label, str(actor), "")
        assert 1 <= named.fold <= 5
    order = ["Neutral", "", "Happy", "Sad", "Angry", "Fear", "Disgust", "Surprise"]
    sexes: dict[int, list[int]] = {fold: [0, 0] for fold in range(1, 6)}
    for actor in range(1, 25):
        folds = set()
        for modality, channel, emotion, intensity in product((1, 2), (1, 2), range(1, 9), (1, 2)):
            named = ravdess(f"{modality:02d}-{channel:02d}-{emotion:02d}-{intensity:02d}-01-02-{actor:02d}")
            assert named.label == order[emotion - 1]
            assert bool(named.why_not) == (emotion == 2)
            assert int(named.person) == actor
            folds.add(named.fold)
        assert len(folds) == 1
        sexes[folds.pop()][actor % 2] += 1
    assert all(men == women >= 2 for men, women in sexes.values())
    assert ravdess("03-01-03-01-01-01-01").why_not == "sound without pictures"


@given(st.one_of(st.text(max_size=30), st.from_regex(r"[01]\d(-\d\d){5,7}"), st.from_regex(r"\d{4}(_[A-Z]{2,3}){3}")))
def test_other_names_are_not_read(name: str) -> None:
    for reader in READERS.values():
        named = reader(name)
        assert named is None or named.label in ("", *EMOTIONS)
    assert crema_d(name + "x") is None
    assert ravdess("04" + name[2:]) is None


def test_persons_in_a_csv_become_folds(tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        film(tmp_path / f"{number}.mp4", RED, frames=2)
        rows.append(f"{number}.mp4,Happy,person {number % 6}")
    (tmp_path / "videos.csv").write_text("\n".join(["path,label,person", *rows]) + "\n")
    assert crop(tmp_path / "videos.csv", "--out", tmp_path / "out") == 0
    table = pd.read_csv(tmp_path / "out" / "clips.csv")
    assert len(table[["person", "fold"]].drop_duplicates()) == 6
    assert sorted(table["fold"].unique()) == [1, 2, 3, 4, 5]
    assert (table["split"] == "test").equals(table["fold"] == 1)


def test_ones_own_split_is_kept(tmp_path: Path, capsys) -> None:
    parts = ["train", "train", "test"]
    rows = [f"{film(tmp_path / f'{i}.mp4', RED, frames=2).name},Happy,{part},p{i}" for i, part in enumerate(parts)]
    (tmp_path / "videos.csv").write_text("\n".join(["path,label,split,person", *rows]) + "\n")
    assert crop(tmp_path / "videos.csv", "--out", tmp_path / "out") == 0
    table = pd.read_csv(tmp_path / "out" / "clips.csv")
    assert table.columns.tolist() == ["path", "label", "split", "person"]
    assert table["split"].tolist() == parts
    assert capsys.readouterr().out.rstrip().endswith(f"Train: --data Clips --data.root {tmp_path / 'out'}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,fold,person\na.mp4,1,ann\nb.mp4,2,bob\nc.mp4,2,ann\n", "c.mp4: person 'ann' is in fold 1 and in fold 2"),
        ("path,split,person\na.mp4,test,ann\nb.mp4,train,ann\n", "'ann' is in split test and in split train"),
        ("path,person\na.mp4,ann\nb.mp4,ann\n", "All videos are of one person, 'ann'"),
        ("path,person\na.mp4,ann\nb.mp4,\n", "b.mp4: the person is empty"),
    ],
)
def test_persons_who_cannot_be_kept_apart(table: str, message: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "videos.csv").write_text(table)
    assert crop(tmp_path / "videos.csv", "--out", tmp_path / "out") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_videos_without_labels_can_be_predicted(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", GREEN)
    assert crop(path, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "clips.csv").read_text() == "path\nclips/a\n"
    assert Clips(str(tmp_path / "out")).read_split("predict").to_numpy().tolist() == [["clips/a", -1]]


def test_nothing_kept_is_status_1(tmp_path: Path) -> None:
    assert crop(film(tmp_path / "nobody.mp4"), "--out", tmp_path / "out") == 1


def test_killed_before_the_folder_was_marked_the_same_words_go_on(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".crop.json.1234.tmp").write_text("{")
    assert crop(film(tmp_path / "a.mp4", GREEN), "--out", tmp_path / "out") == 0


def test_other_options_and_other_folders_are_refused(tmp_path: Path, capsys) -> None:
    path = film(tmp_path / "a.mp4", GREEN)
    assert crop(path, "--out", tmp_path / "out") == 0
    assert crop(path, "--out", tmp_path / "out", "--least", "0.9") == 2
    assert "made with other options (least: there 0.5, asked 0.9)" in capsys.readouterr().err
    assert crop(path, "--out", tmp_path) == 2
    assert "is not empty and was not made by `crop`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\na.mp4,Joy\n", r"line 2: label is 'Joy', expected one of Happy"),
        ("path,label,split\na.mp4,Sad,dev\n", "line 2: split is 'dev', expected train or test"),
        ("path,fold\na.mp4,first\n", "line 2: fold is 'first', expected a number"),
        ("file\na.mp4\n", "lacks the column 'path'"),
        ("path\n", "no videos"),
        ("path\na.mp4\na.mov\n", "Several videos would be written to clips/a"),
    ],
)
def test_a_wrong_csv_is_told_before_any_work(table: str, message: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "videos.csv").write_text(table)
    assert crop(tmp_path / "videos.csv", "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "No videos given"),
        (("a.csv", "b.mp4"), "A csv stands alone"),
        (("a.mp4", "--least", "2"), "least is 2.0; allowed: 0 to 1"),
        (("empty",), "no videos (.mp4"),
    ],
)
def test_wrong_words(words: tuple[str, ...], message: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert crop(*words, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_the_main_person_fills_most_of_the_picture_for_most_of_the_time(tmp_path: Path) -> None:
    frames = [scene((RED, 40, 60, 30), *([(BLUE, 110, 60, 60)] if number > 14 else [])) for number in range(20)]
    footage = dataset.look_through(write_film(tmp_path / "a.mp4", frames), find)
    assert len(footage.people) == 2
    assert dataset.main_person(footage) is footage.people[0]
    facts = json.dumps(dataset.dropped(dataset.Source(Path("a"), "clips/a", {}), "why"))
    assert json.loads(facts) == {"video": "a", "clip": "clips/a", "kept": False, "why": "why"}


def test_another_video_of_the_same_name_and_a_changed_one_are_cropped_again(tmp_path: Path, monkeypatch) -> None:
    first, second, root = tmp_path / "first" / "a.mp4", tmp_path / "second" / "a.mp4", tmp_path / "clips"
    film(first, RED)
    film(second, BLUE)
    cropped = []
    write_clip = dataset.write_clip
    monkeypatch.setattr(
        dataset, "write_clip", lambda folder, *rest: cropped.append(rest[0].path) or write_clip(folder, *rest)
    )
    for video in (first, first, second, second):
        assert crop(video, "--out", root) == 0
    assert cropped == [first, second]
    os.utime(second, (time.time() + 10, time.time() + 10))
    assert crop(second, "--out", root) == 0
    assert cropped == [first, second, second]


def test_a_csv_reads_nothing_outside_its_folder(videos: Path, tmp_path: Path, capsys) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "videos.csv").write_text("path,label\n../source/blue.mkv,Neutral\n")
    assert crop(inner / "videos.csv", "--out", tmp_path / "clips") == 2
    assert "'../source/blue.mkv' leaves" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "clips").exists()
    assert crop(inner / "videos.csv", "--out", tmp_path / "clips", "--allow_outside", "true") == 0


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.tuples(
                st.one_of(
                    st.text(max_size=6), st.sampled_from(["a.mp4", "b", "../c", "/d", ".", "/", "a/..", "./a.mp4"])
                ),
                st.one_of(st.text(max_size=3), st.sampled_from(EMOTIONS)),
                st.sampled_from(["train", "test", ""]),
                st.sampled_from(["1", "x", ""]),
            ).map(",".join),
            max_size=5,
        ).map(lambda rows: "\n".join(["path,label,split,fold", *rows]).encode()),
        st.lists(st.text(max_size=6), max_size=5).map(lambda rows: "\n".join(["path", *rows]).encode()),
    ),
    st.booleans(),
)
@example(b"path\n.\n", False)
@example(b"path\n/\n", True)
@example(b"path\n" + b"a" * 300 + b"\n", False)
@example(b"path\n" + b"a/" * 4000 + b"b.mp4\n", False)
def test_any_csv_gives_videos_or_an_error_that_is_told(fuzzed: Path, raw: bytes, allow_outside: bool) -> None:
    (fuzzed / "videos.csv").write_bytes(raw)
    try:
        sources = dataset.find_sources([fuzzed / "videos.csv"], None, allow_outside)
    except InputError:
        return
    assert len({source.clip for source in sources}) == len(sources) > 0
    for source in sources:
        assert source.clip.startswith("clips")
        assert ".." not in Path(source.clip).parts
        assert allow_outside or source.path.resolve().is_relative_to(fuzzed.resolve())


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


def test_a_damaged_clip_is_cropped_again_and_a_damaged_root_is_one_line(tmp_path: Path, capsys) -> None:
    root = tmp_path / "clips"
    words = (film(tmp_path / "a.mp4", RED), "--out", root)
    assert crop(*words) == 0
    facts = root / "clips" / "a" / "clip.json"
    whole = facts.read_text()
    for damaged in ("", "{", "[]", "{}", '{"kept": true}', '{"kept": true, "video": 3}'):
        facts.write_text(damaged)
        assert crop(*words) == 0
        assert facts.read_text() == whole
    for damaged in ("", "{", "3", "null"):
        (root / "crop.json").write_text(damaged)
        capsys.readouterr()
        assert crop(*words) == 2
        assert "crop.json cannot be read" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("out", ["a.mp4/clips", "a.mp4"])
def test_an_out_that_cannot_be_a_folder_is_one_line(out: str, tmp_path: Path, capsys) -> None:
    assert crop(film(tmp_path / "a.mp4", RED), "--out", tmp_path / out) == 2
    assert str(tmp_path / out) in "".join(capsys.readouterr().err.split())


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    film(tmp_path / "a.mp4", RED)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert crop(tmp_path / "a.mp4", "--out", tmp_path / "clips") == 2
    assert "a cannot be written: No space left on device" in " ".join(capsys.readouterr().err.split())
    assert crop(tmp_path / "a.mp4", "--out", tmp_path / "clips") == 0


def test_two_processes_do_not_fill_one_folder(tmp_path: Path, capsys) -> None:
    root, first, second = tmp_path / "clips", film(tmp_path / "a.mp4", RED), film(tmp_path / "b.mp4", BLUE)
    assert crop(first, "--out", root) == 0
    with held(root) as other:
        assert crop(first, second, "--out", root) == 2
        assert f"clips is being filled by process {other.pid}" in " ".join(capsys.readouterr().err.split())
        assert not (root / "clips" / "b").exists()
    assert crop(first, second, "--out", root) == 0
