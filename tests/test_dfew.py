"""DFEW on disk: the published layout, every variant of it in the wild, and plain errors for the rest."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import content, write_clip, write_dfew
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dfer_zoo.data import DFEW
from dfer_zoo.data.dfew import FOLDS, TEST_COUNTS, TRAIN_COUNTS
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError


def csv_of(root: Path, part: str = "train", fold: int = 1) -> Path:
    return root / "EmoLabel_DataSplit" / f"{part}(single-labeled)" / f"set_{fold}.csv"


def rewrite(path: Path, change) -> None:
    """Apply a function of (name, label) to every row of a split file."""
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(",".join(change(*row.split(","))) for row in rows)]) + "\n")


def pairs(data: DFEW, split: str = "train") -> list[tuple[str, int]]:
    table = data.read_split(split)
    return list(zip(table["name"], table["label"], strict=True))


def clip_folder(root: Path, name: str = "00001") -> Path:
    return root / "Clip" / "clip_224x224" / name


def test_published_counts_add_up():
    assert {sum(TEST_COUNTS[fold]) + sum(TRAIN_COUNTS[fold]) for fold in FOLDS} == {11697}
    assert [sum(TEST_COUNTS[fold]) for fold in FOLDS] == [2341, 2341, 2340, 2339, 2336]
    per_class = {tuple(map(sum, zip(TEST_COUNTS[f], TRAIN_COUNTS[f], strict=True))) for f in FOLDS}
    assert len(per_class) == 1, "every fold divides the same clips"
    assert per_class == {tuple(map(sum, zip(*TEST_COUNTS.values(), strict=True)))}, "the test folds partition them"


def test_clips_read_back_exactly_as_written(dfew_root):
    tests = []
    for fold in FOLDS:
        data = DFEW(str(dfew_root), fold=fold, frames=12, size=24)
        for split in ("train", "val", "test"):
            dataset = data.dataset(split)
            tests += dataset.names if split == "test" else []
            for index, name in enumerate(dataset.names):
                if fold == 1:
                    clip = dataset.clip(index) if split != "train" else dataset.sources[index].read(lambda n: range(n))
                    assert content(clip) == (dataset.labels[index], list(range(12)))
                assert dataset.labels[index] == (int(name) - 1) % 7
        parts = [set(data.dataset(split).names) for split in ("train", "val", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 70
    assert Counter(tests) == Counter(f"{i:05d}" for i in range(1, 71)), "the test folds partition the clips"


def test_a_short_clip_is_stretched_and_kept(dfew_root):
    dataset = DFEW(str(dfew_root), frames=16, size=24).dataset("test")
    assert content(dataset.clip(0))[1] == [0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11]


def test_predict_is_the_test_split(dfew_root):
    data = DFEW(str(dfew_root), fold=3)
    assert pairs(data, "predict") == pairs(data, "test")


def test_padded_names(own_dfew):
    expected = pairs(DFEW(str(own_dfew)))
    rewrite(csv_of(own_dfew), lambda name, label: (name.zfill(5), label))
    assert pairs(DFEW(str(own_dfew))) == expected


def test_labels_from_zero_are_recognised(own_dfew):
    expected = {part: pairs(DFEW(str(own_dfew)), part) for part in ("train", "test")}
    for part in ("train", "test"):
        rewrite(csv_of(own_dfew, part), lambda name, label: (name, str(int(label) - 1)))
    assert {part: pairs(DFEW(str(own_dfew)), part) for part in ("train", "test")} == expected


def test_labels_from_zero_are_recognised_from_the_other_file(own_dfew):
    """A test file without a single Happy holds no 0, and would be off by one alone."""
    expected = [pair for pair in pairs(DFEW(str(own_dfew)), "test") if pair[1] != 0]
    for part in ("train", "test"):
        rewrite(csv_of(own_dfew, part), lambda name, label: (name, str(int(label) - 1)))
    path = csv_of(own_dfew, "test")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.endswith(",0\n")))
    assert pairs(DFEW(str(own_dfew)), "test") == expected


@pytest.mark.parametrize("part", ["train", "test"])
def test_labels_0_and_7_together_are_refused(own_dfew, part):
    path = csv_of(own_dfew, part)
    path.write_text(path.read_text().replace(",1\n", ",0\n", 1))
    for split in ("train", "test"):
        with pytest.raises(DataError, match="both label 0 and label 7"):
            DFEW(str(own_dfew)).read_split(split)


def test_split_files_named_after_their_part(own_dfew):
    expected = pairs(DFEW(str(own_dfew)), "test")
    for part in ("train", "test"):
        path = csv_of(own_dfew, part)
        path.rename(path.with_name(f"{part}_set_1.csv"))
    assert pairs(DFEW(str(own_dfew)), "test") == expected


def test_folder_nested_in_itself(own_dfew):
    inner = own_dfew / "Clip" / "clip_224x224"
    inner.rename(own_dfew / "Clip" / "moved")
    inner.mkdir()
    (own_dfew / "Clip" / "moved").rename(inner / "clip_224x224")
    data = DFEW(str(own_dfew), frames=2, size=24)
    assert content(data.dataset("test").clip(0)) == (0, [0, 1])


def test_sixteen_frame_release_is_read_in_order_of_time(tmp_path):
    root = write_dfew(tmp_path / "dfew", clips=35, frames=1)
    shutil.rmtree(root / "Clip")
    for number in range(1, 36):
        names = [f"{n}.jpg" for n in range(1, 17)]
        write_clip(root / "Clip" / "clip_224x224_16f" / f"{number:05d}", names, (number - 1) % 7)
    dataset = DFEW(str(root), frames=16, size=24).dataset("test")
    assert [content(dataset.clip(i)) for i in range(len(dataset))] == [(label, list(range(16))) for label in range(7)]


def test_frames_of_other_sizes(own_dfew):
    shutil.rmtree(clip_folder(own_dfew))
    write_clip(clip_folder(own_dfew), [f"{n}.jpg" for n in range(12)], color=0, size=37)
    data = DFEW(str(own_dfew), frames=12, size=24)
    batch = data.dataset("test")[[(0, 0), (0, 1)]]
    assert batch.video.shape == (2, 3, 12, 24, 24)
    assert content(batch.video[0].permute(1, 2, 3, 0).numpy()) == (0, list(range(12)))


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda folder: [path.unlink() for path in folder.iterdir()]])
def test_missing_and_empty_clips_are_named(own_dfew, damage):
    damage(clip_folder(own_dfew, "00001"))
    damage(clip_folder(own_dfew, "00070"))
    with pytest.raises(DataError, match=r"1 of 14 clips .* 00001\. Run `dfer-zoo check dfew") as error:
        DFEW(str(own_dfew)).clips("test")
    assert str(own_dfew) in str(error.value)
    with pytest.raises(DataError, match="00070"):
        DFEW(str(own_dfew)).setup("fit")


@pytest.mark.parametrize("gone", ["EmoLabel_DataSplit", "Clip", "."])
def test_missing_data_says_where_it_was_looked_for_and_how_to_get_it(own_dfew, gone):
    shutil.rmtree(own_dfew / gone)
    with pytest.raises(DataError, match=r"dfew-dataset\.github\.io") as error:
        DFEW(str(own_dfew)).setup("fit")
    assert str(own_dfew) in str(error.value)
    assert "make twin DATA=dfew" in str(error.value)


@pytest.mark.parametrize("fold", [0, 6, -1])
def test_wrong_fold(fold):
    with pytest.raises(InputError, match=f"data.fold is {fold}; DFEW has folds 1, 2, 3, 4, 5"):
        DFEW(fold=fold)


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace("video_name,label", " Video_Name , LABEL ").encode(),
        lambda text: text.replace(",", " , ").replace("\n", "\n\n").encode(),
        lambda text: text.rstrip("\n").encode(),
    ],
    ids=["BOM", "CRLF", "semicolons", "header case", "spaces and empty lines", "no last newline"],
)
def test_harmless_differences_between_csv_files(own_dfew, encode):
    expected = pairs(DFEW(str(own_dfew)))
    path = csv_of(own_dfew)
    path.write_bytes(encode(path.read_text()))
    assert pairs(DFEW(str(own_dfew))) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column 'video_name'"),
        ("name,label\n1,1\n", "lacks the column 'video_name'.*'name,label'.*video_name, label"),
        ("video_name,emotion\n1,1\n", "lacks the column 'label'"),
        ("1,1\n2,2\n", "lacks the column"),
        ("video_name,label,label\n1,1,2\n", "names a column twice"),
        ("video_name,label\n1,1\n2\n", "line 3: 1 cells where the header has 2"),
        ("video_name,label\n1,1,1\n", "line 2: 3 cells"),
        ("video_name,label\nabc,1\n", "line 2: video_name is 'abc'"),
        ("video_name,label\n-1,1\n", "line 2: video_name is '-1'"),
        ("video_name,label\n../1,1\n", "line 2: video_name is '../1'"),
        ("video_name,label\n1,8\n", "line 2: label is '8', expected 1 to 7"),
        ("video_name,label\n1,0000000012\n", "line 2: label is '0000000012'"),
        ("video_name,label\n1,Happy\n", "line 2: label is 'Happy'"),
        ("video_name,label\n1,²\n", "line 2: label is '²'"),
        ("video_name,label\n1,1.0\n", "line 2: label is '1.0'"),
        ("video_name,label\n1,\n", "line 2: label is ''"),
        ("video_name,label\n1,1\n2,2\n00001,1\n", "lists 1 clips more than once, first '00001'"),
        ('video_name,label\n"1,1\n', "not valid csv"),
    ],
)
def test_wrong_csv_files_are_refused_with_the_line(own_dfew, text, message):
    path = csv_of(own_dfew)
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        DFEW(str(own_dfew)).read_split("train")
    assert str(path) in str(error.value)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("fuzzed")
    for part in ("train", "test"):
        csv_of(root, part).parent.mkdir(parents=True)
        csv_of(root, part).write_text("video_name,label\n1,3\n")
    return root


CELL = st.one_of(st.text(max_size=8), st.integers(-2, 12).map(str), st.from_regex(r"0{0,12}\d{1,12}", fullmatch=True))
ROWS = st.lists(st.lists(CELL, min_size=1, max_size=3).map(",".join), max_size=6).map("\n".join)


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        ROWS.map(lambda rows: f"video_name,label\n{rows}".encode()),
    )
)
@example(b"\xff\xfev\x00i\x00")
@example(b"video_name,label\n1,\x00\n")
@example(b"video_name,label\n" + b"9" * 200_000 + b",1\n")
@example(b"video_name,label\n1," + b"1" * 5000 + b"\n")
def test_any_file_gives_a_table_or_a_data_error(fuzzed, raw):
    csv_of(fuzzed).write_bytes(raw)
    try:
        table = DFEW(str(fuzzed)).read_split("train")
    except DataError:
        return
    assert table["label"].between(0, len(EMOTIONS) - 1).all()
    assert table["name"].is_unique
    assert table["name"].str.fullmatch(r"\d{5,9}").all()


def test_a_table_of_one_base_keeps_its_labels(own_dfew):
    """Every label of the published 1 to 7 arrives as one of 0 to 6, in the order of the emotions."""
    rows = pairs(DFEW(str(own_dfew)), "test")
    assert [label for _, label in rows] == [(int(name) - 1) % 7 for name, _ in rows]
    assert {label for _, label in rows} == set(range(7))


def test_every_folder_is_listed_once_at_the_start_of_training(dfew_root, listings):
    data = DFEW(str(dfew_root))
    data.setup("fit")
    assert data.class_counts == [7] * 7
    for split in ("train", "val"):
        data.dataset(split)
    clips = [str(clip_folder(dfew_root, name)) for name in [*data.clips("train")["name"], *data.clips("val")["name"]]]
    assert listings == dict.fromkeys([*clips, str(clip_folder(dfew_root).parent)], 1)
