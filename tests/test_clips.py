"""A table of clips of one's own: folders of frames and videos, and nothing outside the root."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import content, write_clip
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dfer_zoo.data import Clips
from dfer_zoo.data.reading import FrameFolder, VideoFile
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError


def write_csv(root: Path, *rows: str, header: str = "path,label,split") -> Path:
    path = root / "clips.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def pairs(root: Path, split: str = "train", **options) -> list[tuple[str, int]]:
    table = Clips(str(root), **options).read_split(split)
    return list(zip(table["name"], table["label"], strict=True))


def write_video(path: Path, frames: int = 5) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (32, 32))
    for number in range(frames):
        writer.write(np.full((32, 32, 3), 12 * number, np.uint8))
    writer.release()


def test_clips_read_back_exactly_as_written(clips_root):
    data = Clips(str(clips_root), frames=8, size=24)
    for split in ("val", "test"):
        dataset = data.dataset(split)
        for index, name in enumerate(dataset.names):
            assert dataset.labels[index] == int(name.split()[1]) % 7
            assert content(dataset.clip(index)) == (dataset.labels[index], list(range(8)))
    parts = [set(data.dataset(split).names) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [14, 7, 7]
    assert len(set.union(*parts)) == 28


def test_predict_takes_the_rows_of_all_splits_and_needs_no_label(clips_root, own_clips):
    assert len(pairs(clips_root, "predict")) == 28
    write_csv(own_clips, "clip 0,", "clip 1,Fear", header="path,label")
    assert pairs(own_clips, "predict") == [("clip 0", -1), ("clip 1", 6)]
    write_csv(own_clips, "clip 2", header="path")
    assert pairs(own_clips, "predict") == [("clip 2", -1)]


def test_labels_by_name_in_any_case_or_by_id(tmp_path):
    rows = [f"{i},{label},train" for i, label in enumerate(["Happy", "SAD", "neutral", "3", "4", "05", "Fear"])]
    write_csv(tmp_path, *rows)
    assert [label for _, label in pairs(tmp_path)] == list(range(7))


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace("clip 3", '"clip 3"').encode(),
    ],
    ids=["BOM", "CRLF", "semicolons", "quotes"],
)
def test_harmless_differences_between_csv_files(own_clips, encode):
    expected = pairs(own_clips)
    path = own_clips / "clips.csv"
    path.write_bytes(encode(path.read_text()))
    assert pairs(own_clips) == expected


def test_columns_in_any_order_beside_others(tmp_path):
    write_csv(tmp_path, "7,train,a b.mp4,Sad", header="actor,split,path,label")
    assert pairs(tmp_path) == [("a b.mp4", 1)]


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("path,label", "a,Sad", "lacks the column 'split'"),
        ("file,label,split", "a,Sad,train", "lacks the column 'path'"),
        ("path,label,split", "a,Joy,train", r"line 2: label is 'Joy', expected one of Happy \(0\), Sad \(1\)"),
        ("path,label,split", "a,7,train", "line 2: label is '7'"),
        ("path,label,split", "a,-1,train", "line 2: label is '-1'"),
        ("path,label,split", "a,00000000012,train", "line 2: label is '00000000012'"),
        ("path,label,split", "a,,train", "line 2: label is ''"),
        ("path,label,split", "a,Sad,dev", "line 2: split is 'dev', expected train or test"),
        ("path,label,split", ",Sad,train", "line 2: the path is empty"),
        ("path,label,split", "a,Sad", "line 2: 2 cells where the header has 3"),
        ("path,label,split", "a,Sad,train\na,Sad,train", "lists 1 clips more than once, first 'a'"),
    ],
)
def test_wrong_rows_are_refused_with_their_line(tmp_path, header, row, message):
    path = write_csv(tmp_path, row, header=header)
    with pytest.raises(DataError, match=message) as error:
        pairs(tmp_path)
    assert str(path) in str(error.value)


def test_paths_that_leave_the_root_are_refused(own_clips, tmp_path):
    write_clip(tmp_path / "outside", ["1.jpg"], color=2)
    (own_clips / "link").symlink_to(tmp_path / "outside")
    for path in ("../outside", str(tmp_path / "outside"), "clip 0/../../outside", "link"):
        write_csv(own_clips, f"{path},Neutral,train")
        with pytest.raises(DataError, match=r"line 2: .* leaves .* data\.allow_outside: true"):
            pairs(own_clips)
        data = Clips(str(own_clips), frames=1, size=24, allow_outside=True)
        (source,) = data.sources([name for name, _ in pairs(own_clips, allow_outside=True)])
        assert content(np.stack(source.read(lambda count: range(count)))) == (2, [0])


def test_paths_with_dots_that_stay_inside(own_clips):
    write_csv(own_clips, "clip 0/../clip 1,Sad,train")
    assert pairs(own_clips) == [("clip 0/../clip 1", 1)]


def test_a_frame_that_links_to_elsewhere_is_refused(own_clips, tmp_path):
    write_clip(tmp_path / "outside", ["1.jpg"], color=2)
    frame = own_clips / "clip 0" / "7.jpg"
    frame.symlink_to(own_clips / "clip 1" / "0.jpg")
    Clips(str(own_clips)).setup("fit")
    frame.unlink()
    frame.symlink_to(tmp_path / "outside" / "1.jpg")
    with pytest.raises(DataError, match=r"clip 0/7\.jpg leaves .* data\.allow_outside: true"):
        Clips(str(own_clips)).setup("fit")
    Clips(str(own_clips), allow_outside=True).setup("fit")
    (own_clips / "clips.csv").unlink()  # a folder to predict is the word of whoever starts it
    Clips(str(own_clips)).setup("predict")


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("other", ["./clip 0", "clip 1/../clip 0", "clip 0/", ".//clip 0", "linked", "absolute"])
def test_one_clip_under_two_names_is_refused(own_clips, other, part):
    """It could be trained on twice, or trained and tested on, without a word."""
    (own_clips / "linked").symlink_to(own_clips / "clip 0")
    other = str(own_clips / "clip 0") if other == "absolute" else other
    with (own_clips / "clips.csv").open("a") as file:
        file.write(f"{other},Happy,{part}\n")
    for allow_outside in (False, True):
        with pytest.raises(DataError, match=r"line 30: '.*' is the clip that is called 'clip 0' above\."):
            Clips(str(own_clips), allow_outside=allow_outside).setup("fit")


def test_sources_are_folders_videos_or_missing(own_clips):
    (own_clips / "a.mp4").touch()
    (own_clips / "empty").mkdir()
    folder, video, empty, missing = Clips(str(own_clips)).sources(["clip 1", "a.mp4", "empty", "nowhere"])
    assert folder == FrameFolder(str(own_clips / "clip 1"), tuple(f"{n}.jpg" for n in range(2)))
    assert video == VideoFile(str(own_clips / "a.mp4"))
    assert empty is missing is None


def test_missing_clips_are_named(own_clips):
    write_csv(own_clips, "clip 1,Sad,test", "gone.mp4,Sad,test")
    with pytest.raises(DataError, match=r"1 of 2 clips .* gone\.mp4\. Run `dfer-zoo check clips"):
        Clips(str(own_clips)).setup("test")


def test_a_folder_without_csv_is_scanned_for_prediction(tmp_path):
    write_clip(tmp_path / "frames", ["1.jpg", "2.jpg"], color=4)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    write_video(tmp_path / "film.MP4")
    data = Clips(str(tmp_path), frames=5, size=24, workers=0)
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch.name == ["film.MP4", "frames"]
    assert batch.label.tolist() == [-1, -1]
    film = batch.video[0].float().mean(dim=(0, 2, 3))
    assert [round(value / 12) for value in film.tolist()] == [0, 1, 2, 3, 4]
    assert content(batch.video[1].permute(1, 2, 3, 0).numpy()) == (4, [0, 0, 1, 1, 1])


def test_a_text_file_called_mp4_is_a_data_error(tmp_path):
    (tmp_path / "talk.mp4").write_text("no video")
    data = Clips(str(tmp_path), workers=0)
    data.setup("predict")
    with pytest.raises(DataError, match=r"talk\.mp4 is not a video"):
        next(iter(data.predict_dataloader()))


def test_a_folder_without_anything(tmp_path):
    with pytest.raises(DataError, match=r"holds no video .* no folder of frames .* no clips\.csv"):
        Clips(str(tmp_path)).setup("predict")
    with pytest.raises(DataError, match="write a csv with the header path,label,split"):
        Clips(str(tmp_path)).setup("fit")
    with pytest.raises(DataError, match=r"no folder .*nowhere.*Pass a folder with videos"):
        Clips(str(tmp_path / "nowhere")).setup("predict")


HOSTILE = [
    "a b",
    "it's",
    'say "cheese"',
    "two\nlines",
    "comma, semicolon;\ttab",
    "表情",
    "é",
    "-rf *",
    "$(touch x)",
    "{0}",
]


def test_names_with_any_characters(tmp_path):
    with (tmp_path / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        rows.writerows([name, EMOTIONS[i % 7], "train"] for i, name in enumerate(HOSTILE))
    for i, name in enumerate(HOSTILE):
        write_clip(tmp_path / name, ["1.jpg"], color=i % 7)
    data = Clips(str(tmp_path), size=16, workers=0)
    table = pd.concat([data.clips("train"), data.clips("val")])
    assert set(table["name"]) == set(HOSTILE)
    for split in ("train", "val"):
        dataset = data.dataset(split)
        for index, name in enumerate(dataset.names):
            assert dataset.labels[index] == HOSTILE.index(name) % 7
            assert dataset.clip(index).shape == (16, 16, 16, 3)


def test_a_name_that_is_no_text_is_refused(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    Path(os.fsdecode(folder)).write_bytes(b"")
    with pytest.raises(DataError, match="not UTF-8"):
        Clips(str(tmp_path)).setup("predict")


def test_links_in_a_circle_are_refused(own_clips):
    (own_clips / "round").symlink_to(own_clips / "about")
    (own_clips / "about").symlink_to(own_clips / "round")
    with (own_clips / "clips.csv").open("a") as file:
        file.write("round,Sad,train\n")
    with pytest.raises(DataError, match="round"):
        Clips(str(own_clips)).setup("fit")


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.lists(
            st.tuples(
                st.one_of(st.text(max_size=6), st.sampled_from(["a.mp4", "b", "../c", "/d", "."])),
                st.one_of(st.text(max_size=3), st.sampled_from(EMOTIONS), st.integers(-1, 20).map(str)),
                st.sampled_from(["train", "test", ""]),
            ).map(",".join),
            max_size=5,
        ).map(lambda rows: "\n".join(["path,label,split", *rows]).encode()),
    ),
    st.sampled_from(["train", "predict"]),
)
@example(b"path,label,split\n" + b"a" * 300 + b",Sad,train", "train")
@example(b"path,label,split\n" + b"a/" * 4000 + b",Sad,train", "train")
@example(b"path,label,split\na\x00b,Sad,train", "train")
@example(b"path,label,split\na," + b"1" * 5000 + b",train", "train")
def test_any_file_gives_a_table_or_a_data_error(fuzzed, raw, split):
    (fuzzed / "clips.csv").write_bytes(raw)
    data = Clips(str(fuzzed))
    try:
        table = data.read_split(split)
        data.sources(table["name"].tolist())
    except DataError:
        return
    assert table["name"].is_unique
    assert table["label"].between(0 if split == "train" else -1, len(EMOTIONS) - 1).all()
    for name in table["name"]:
        assert os.path.realpath(fuzzed / name).startswith(os.path.realpath(fuzzed))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


def test_every_folder_is_listed_once_at_the_start_of_training(clips_root, listings):
    data = Clips(str(clips_root))
    data.setup("fit")
    data.setup("test")
    assert listings == {str(clips_root / f"clip {i}"): 1 for i in range(28)}


def test_folds_are_numbers(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("path,label,fold\na,Happy,01\nb,Sad,2\nc,Sad,2\n")
    clips = Clips(str(tmp_path), fold=1)
    assert clips.known_folds() == (1, 2)
    assert clips.read_split("test")["name"].tolist() == ["a"]
    assert clips.read_split("train")["name"].tolist() == ["b", "c"]
    with pytest.raises(DataError, match=r"has no fold 3; its folds are 1, 2\."):
        Clips(str(tmp_path), fold=3).read_split("test")
    for wrong in ("", "one", "-1", "9" * 5000):
        path.write_text(f"path,label,fold\na,Happy,{wrong}\n")
        with pytest.raises(DataError, match=r"line 2: fold is .*, expected a number"):
            clips.read_split("train")
        with pytest.raises(DataError, match="line 2: fold is"):
            clips.known_folds()
    path.write_text("path,label,split\na,Happy,train\n")
    assert Clips(str(tmp_path)).known_folds() == ()
