"""`dfer-zoo check`: what is wrong is said and the exit status is 1; what is right is 0."""

import shutil
from pathlib import Path

import pytest
from conftest import write_dfew

from dfer_zoo.__main__ import main
from dfer_zoo.data.check import check
from dfer_zoo.errors import DataError


def split_file(root: Path, part: str, fold: int) -> Path:
    return root / "EmoLabel_DataSplit" / f"{part}(single-labeled)" / f"set_{fold}.csv"


def clip_folder(root: Path, name: str = "00008") -> Path:
    return root / "Clip" / "clip_224x224" / name


def said(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["dfew", "ferv39k", "clips"])
def test_intact_data_passes(name, request, capsys):
    assert check(name, str(request.getfixturevalue(f"{name}_root"))) == 0
    output = said(capsys)
    assert "All right." in output
    assert "error" not in output
    if name != "clips":
        assert "do not have the published numbers of clips" in output


def test_counts_are_shown(dfew_root, capsys):
    check("dfew", str(dfew_root))
    lines = capsys.readouterr().out.splitlines()
    for fold in range(1, 6):
        for part, count in (("train", "8"), ("test", "2")):
            (line,) = [line for line in lines if f"fold {fold} {part}" in line and "note" not in line]
            assert [cell for cell in line.split() if cell.isdecimal()][1:] == [count] * 7 + [str(7 * int(count))]


def test_published_counts_pass_without_a_note(dfew_root, capsys, monkeypatch):
    for part, count in (("TRAIN", 8), ("TEST", 2)):
        monkeypatch.setattr(f"dfer_zoo.data.dfew.{part}_COUNTS", dict.fromkeys(range(1, 6), (count,) * 7))
    assert check("dfew", str(dfew_root)) == 0
    assert "note" not in said(capsys)


def test_every_folder_is_listed_once(dfew_root, listings):
    assert check("dfew", str(dfew_root)) == 0
    folders = [str(clip_folder(dfew_root, f"{i:05d}")) for i in range(1, 71)] + [str(clip_folder(dfew_root).parent)]
    assert {folder: times for folder, times in listings.items() if str(dfew_root) in folder} == dict.fromkeys(
        folders, 1
    )


def put_a_test_clip_into_training(root: Path) -> None:
    with split_file(root, "train", 2).open("a") as file:
        file.write("8,1\n")


def put_a_clip_into_two_test_folds(root: Path) -> None:
    put_a_test_clip_into_training(root)
    path = split_file(root, "train", 3)
    path.write_text(path.read_text().replace("\n8,1\n", "\n"))
    with split_file(root, "test", 3).open("a") as file:
        file.write("8,1\n")


def drop_a_class(root: Path) -> None:
    path = split_file(root, "test", 4)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.endswith(",6\n")))


def write_both_bases(root: Path) -> None:
    path = split_file(root, "test", 5)
    path.write_text(path.read_text().replace(",1\n", ",0\n", 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (put_a_test_clip_into_training, "fold 2: 1 clips are in train and test, first 00008"),
        (put_a_clip_into_two_test_folds, "1 clips are in more than one test fold"),
        (drop_a_class, "fold 4 test: no clip is labelled Disgust"),
        (write_both_bases, "both label 0 and label 7"),
        (lambda root: shutil.rmtree(clip_folder(root)), "1 clips are missing or have no frames: 00008."),
        (lambda root: [p.unlink() for p in clip_folder(root).iterdir()], "missing or have no frames: 00008."),
        (lambda root: (clip_folder(root) / "1.jpg").write_bytes(b"?"), "00008/1.jpg (1 bytes) is not a readable image"),
        (lambda root: shutil.rmtree(root / "Clip"), "No frames at"),
        (lambda root: split_file(root, "test", 3).unlink(), "test(single-labeled)/set_3.csv"),
        (lambda root: shutil.rmtree(root / "EmoLabel_DataSplit"), "No DFEW at"),
    ],
)
def test_each_kind_of_damage_is_said_once_and_fails(own_dfew, capsys, damage, message):
    damage(own_dfew)
    assert check("dfew", str(own_dfew)) == 1
    output = said(capsys)
    assert "Something is wrong" in output
    assert message in output
    errors = [error.strip() for error in output.split("error: ")[1:]]
    assert len(errors) == len(set(errors))


def test_a_damaged_later_frame_is_found_when_every_frame_is_read(own_dfew, capsys):
    (clip_folder(own_dfew) / "2.jpg").write_bytes(b"\xff\xd8 cut off")
    assert check("dfew", str(own_dfew)) == 0
    assert check("dfew", str(own_dfew), every_frame=True) == 1
    assert "00008/2.jpg" in said(capsys)


def test_many_errors_are_counted_and_the_first_are_shown(tmp_path, capsys):
    root = write_dfew(tmp_path / "dfew", frames=1)
    for folder in (root / "Clip" / "clip_224x224").iterdir():
        (folder / "1.jpg").write_bytes(b"?")
    assert check("dfew", str(root)) == 1
    output = said(capsys)
    assert output.count("not a readable image") == 20
    assert "... and 50 more errors" in output


def test_ferv39k_overlap_and_missing_clip(own_ferv39k, capsys):
    folder = own_ferv39k / "4_setups" / "All_scenes"
    with (folder / "test_All.csv").open("a") as file:
        file.write("Action/Sad/0001 Sad\n")
    shutil.rmtree(own_ferv39k / "2_ClipsforFaceCrop" / "Argue" / "Fear" / "0002")
    assert check("ferv39k", str(own_ferv39k)) == 1
    output = said(capsys)
    assert "all: 1 clips are in train and test, first Action/Sad/0001" in output
    assert "1 clips are missing or have no frames: Argue/Fear/0002." in output


def test_clips_overlap_and_broken_video(own_clips, capsys):
    (own_clips / "talk.mp4").write_text("no video")
    with (own_clips / "clips.csv").open("a") as file:
        file.write("clip 0,Happy,test\ntalk.mp4,Sad,train\n")
    assert check("clips", str(own_clips)) == 1
    output = said(capsys)
    assert "clips: 1 clips are in train and test, first clip 0" in output
    assert "talk.mp4 is not a video" in output


@pytest.mark.parametrize(
    ("name", "next_step"), [("dfew", "make twin DATA=dfew"), ("ferv39k", "make twin DATA=ferv39k"), ("clips", "videos")]
)
def test_no_folder_at_all(tmp_path, name, next_step):
    with pytest.raises(DataError, match=rf"There is no folder .*nowhere\. .*{next_step}"):
        check(name, str(tmp_path / "nowhere"))


def test_exit_status_of_the_command(dfew_root, own_dfew, tmp_path, capsys):
    assert main(["check", "dfew", "--root", str(dfew_root)]) == 0
    shutil.rmtree(clip_folder(own_dfew))
    assert main(["check", "dfew", "--root", str(own_dfew)]) == 1
    assert main(["check", "dfew", "--root", str(tmp_path / "nowhere")]) == 2
    captured = capsys.readouterr()
    assert "There is no folder" in captured.out + captured.err
    assert "Traceback" not in captured.out + captured.err
