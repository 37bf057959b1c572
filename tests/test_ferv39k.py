"""FERV39k on disk: no header, labels twice, numbers that restart and frames with gaps."""

import shutil
from pathlib import Path

import pytest
from conftest import content, write_clip
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dfer_zoo.data import FERV39k
from dfer_zoo.data.ferv39k import SCENES, TEST_COUNTS, TRAIN_COUNTS
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError


def csv_of(root: Path, part: str = "train") -> Path:
    return root / "4_setups" / "All_scenes" / f"{part}_All.csv"


def clip_folder(root: Path, name: str = "Action/Happy/0000") -> Path:
    return root / "2_ClipsforFaceCrop" / name


def test_published_counts_add_up():
    assert sum(TRAIN_COUNTS) == 31088
    assert sum(TEST_COUNTS) == 7847
    assert len(set(SCENES)) == 22


@pytest.mark.parametrize("split", ["train", "test"])
def test_split_files_read_back_exactly_as_written(ferv39k_root, split):
    table = FERV39k(str(ferv39k_root)).read_split(split)
    lines = csv_of(ferv39k_root, split).read_text().splitlines()
    read = [f"{name} {EMOTIONS[label]}" for name, label in zip(table["name"], table["label"], strict=True)]
    assert read == lines, "the first line is a clip, not a header"
    assert len(read) == {"train": 42, "test": 14}[split]


def test_clips_read_back_exactly_as_written(ferv39k_root):
    """Frame numbers have a gap (0 to 4, then 100 to 104): names are listed, never built."""
    data = FERV39k(str(ferv39k_root), frames=10, size=24)
    for split in ("val", "test"):
        dataset = data.dataset(split)
        for index, name in enumerate(dataset.names):
            assert EMOTIONS[dataset.labels[index]] == name.split("/")[1]
            assert content(dataset.clip(index)) == (dataset.labels[index], list(range(10)))
    parts = [set(data.dataset(split).names) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 56


def test_frames_are_sorted_by_number(own_ferv39k):
    shutil.rmtree(clip_folder(own_ferv39k, "Action/Happy/0003"))
    write_clip(clip_folder(own_ferv39k, "Action/Happy/0003"), ["3.jpg", "20.jpg", "100.jpg"], color=0)
    dataset = FERV39k(str(own_ferv39k), frames=3, size=24).dataset("test")
    assert dataset.names[0] == "Action/Happy/0003"
    assert content(dataset.clip(0)) == (0, [0, 1, 2])


def test_the_same_number_in_other_scenes_and_emotions_is_another_clip(own_ferv39k):
    shutil.rmtree(clip_folder(own_ferv39k, "Argue/Fear/0003"))
    write_clip(clip_folder(own_ferv39k, "Argue/Fear/0003"), ["8.jpg", "9.jpg", "10.jpg"], color=6)
    data = FERV39k(str(own_ferv39k), frames=2, size=24)
    dataset = data.dataset("test")
    numbers = {name.rsplit("/", 1)[1] for name in dataset.names}
    assert numbers == {"0003"}
    assert len(set(dataset.names)) == 14
    lengths = dict(zip(dataset.names, (len(source.names) for source in dataset.sources), strict=True))
    assert lengths.pop("Argue/Fear/0003") == 3
    assert set(lengths.values()) == {2}


def test_one_scene(ferv39k_root):
    everything = FERV39k(str(ferv39k_root)).read_split("train")["name"]
    argue = FERV39k(str(ferv39k_root), scene="Argue").read_split("train")["name"]
    assert argue.tolist() == [name for name in everything if name.startswith("Argue/")]
    assert len(argue) == 21


def test_scenes_with_alike_names_are_kept_apart(own_ferv39k):
    csv_of(own_ferv39k).write_text("School/Sad/0001 Sad\nScholarReport/Sad/0001 Sad\n")
    assert FERV39k(str(own_ferv39k), scene="School").read_split("train")["name"].tolist() == ["School/Sad/0001"]


def test_a_scene_without_clips_is_an_error(ferv39k_root):
    with pytest.raises(DataError, match="holds no clips"):
        FERV39k(str(ferv39k_root), scene="War").setup("fit")


def test_wrong_scene():
    with pytest.raises(InputError, match=r"data\.scene is 'action'; FERV39k has: Action, Argue"):
        FERV39k(scene="action")


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", " \n\n").encode(),
        lambda text: text.rstrip("\n").encode(),
    ],
    ids=["BOM", "CRLF", "spaces and empty lines", "no last newline"],
)
def test_harmless_differences_between_files(own_ferv39k, encode):
    expected = FERV39k(str(own_ferv39k)).read_split("train")
    path = csv_of(own_ferv39k)
    path.write_bytes(encode(path.read_text()))
    assert FERV39k(str(own_ferv39k)).read_split("train").equals(expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Action/Sad/0010 Happy", "the path says 'Sad' and the label says 'Happy'"),
        ("Action/Sad/0010 sad", "label 'sad', expected one of Happy, Sad"),
        ("Action/Sad/0010", "label ''"),
        ("Action/Sad/0010,Sad", "expected Scene/Emotion/0000 Emotion"),
        ("Sad/0010 Sad", "expected Scene/Emotion/0000 Emotion"),
        ("Nowhere/Sad/0010 Sad", "expected Scene/Emotion/0000 Emotion"),
        ("Action/Sad/../0010 Sad", "expected Scene/Emotion/0000 Emotion"),
        ("Action/Sad/.. Sad", "expected Scene/Emotion/0000 Emotion"),
        ("/Action/Sad/0010 Sad", "expected Scene/Emotion/0000 Emotion"),
        ("Action/Joy/0010 Joy", "label 'Joy'"),
        ("path label", "expected Scene/Emotion/0000 Emotion"),
    ],
)
def test_wrong_lines_are_refused_with_their_number(own_ferv39k, line, message):
    path = csv_of(own_ferv39k)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], line, *lines[4:]]))
    with pytest.raises(DataError, match=f"line 5: .*{message}") as error:
        FERV39k(str(own_ferv39k)).read_split("train")
    assert str(path) in str(error.value)


def test_a_clip_listed_twice_is_refused(own_ferv39k):
    path = csv_of(own_ferv39k)
    path.write_text(path.read_text() + path.read_text().splitlines()[0])
    with pytest.raises(DataError, match="lists 1 clips more than once, first 'Action/Happy/0000'"):
        FERV39k(str(own_ferv39k)).read_split("train")


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda folder: [path.unlink() for path in folder.iterdir()]])
def test_missing_and_empty_clips_are_named(own_ferv39k, damage):
    damage(clip_folder(own_ferv39k, "Action/Sad/0003"))
    with pytest.raises(DataError, match=r"1 of 14 clips .* Action/Sad/0003\. Run `dfer-zoo check ferv39k"):
        FERV39k(str(own_ferv39k)).setup("test")


@pytest.mark.parametrize("gone", ["4_setups", "2_ClipsforFaceCrop", "."])
def test_missing_data_says_where_it_was_looked_for_and_how_to_get_it(own_ferv39k, gone):
    shutil.rmtree(own_ferv39k / gone)
    with pytest.raises(DataError, match=r"wangyanckxx\.github\.io") as error:
        FERV39k(str(own_ferv39k)).setup("fit")
    assert str(own_ferv39k) in str(error.value)
    assert "make twin DATA=ferv39k" in str(error.value)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("fuzzed")
    csv_of(root).parent.mkdir(parents=True)
    (root / "2_ClipsforFaceCrop").mkdir()
    return root


WORDS = st.one_of(st.sampled_from([*SCENES[:2], *EMOTIONS[:2], "0010", "..", "", " ", "/"]), st.text(max_size=4))
LINES = st.lists(st.lists(WORDS, max_size=6).map("/".join), max_size=5).map("\n".join)
NEARLY = st.tuples(st.sampled_from(SCENES[:2]), st.sampled_from(EMOTIONS[:2]), st.text(max_size=4), WORDS)


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        LINES.map(str.encode),
        st.lists(NEARLY.map("{0[0]}/{0[1]}/{0[2]} {0[3]}".format), max_size=4).map(
            lambda rows: "\n".join(rows).encode()
        ),
    )
)
@example(b"Action/Sad/" + b"9" * 5000 + b" Sad")
@example(b"Action/Sad/0010\x00 Sad")
def test_any_file_gives_a_table_or_a_data_error(fuzzed, raw):
    csv_of(fuzzed).write_bytes(raw)
    data = FERV39k(str(fuzzed))
    try:
        table = data.read_split("train")
        assert data.sources(table["name"].tolist()) == [None] * len(table)
    except DataError:
        return
    assert table["name"].is_unique
    assert [name.split("/")[1] for name in table["name"]] == [EMOTIONS[label] for label in table["label"]]


def test_every_folder_is_listed_once_at_the_start_of_training(ferv39k_root, listings):
    data = FERV39k(str(ferv39k_root))
    data.setup("fit")
    assert data.class_counts == [5] * 7
    data.setup("test")
    names = [name for split in ("train", "val", "test") for name in data.clips(split)["name"]]
    assert listings == {str(clip_folder(ferv39k_root, name)): 1 for name in names}
