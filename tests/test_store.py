"""A packed root reads like the raw one; packing survives interruption, refuses what does not fit, and says so."""

import errno
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import shutil
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import content, write_clip, write_dfew, write_video

from dfer_zoo.__main__ import main
from dfer_zoo.data import DFEW, Clips, FERV39k, sampling
from dfer_zoo.data import pack as packing
from dfer_zoo.data.check import check
from dfer_zoo.data.pack import pack
from dfer_zoo.data.reading import read_image
from dfer_zoo.data.store import FRAMES, HEADER, INDEX, PACKING, VERSION, PackedClip, Store
from dfer_zoo.errors import DataError, InputError

DATASETS = {"dfew": DFEW, "ferv39k": FERV39k, "clips": Clips}


@pytest.fixture(scope="module")
def packed(tmp_path_factory, dfew_root, ferv39k_root, clips_root):
    """Every dataset packed at its frames' own size."""
    roots = {"dfew": dfew_root, "ferv39k": ferv39k_root, "clips": clips_root}
    out = tmp_path_factory.mktemp("packed")
    return {name: (root, pack(name, str(root), str(out / name), size=24)) for name, root in roots.items()}


def said(capsys) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def write_textured(root: Path, shapes: list[tuple[int, int]]) -> Path:
    """Write own clips of one smooth picture a frame, three frames each, of the given heights and widths."""
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(shapes):
        write_clip(root / str(number), [], 0)
        for i in range(3):
            frame = cv2.resize(
                rng.integers(0, 256, (6, 6, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
            )
            cv2.imwrite(str(root / str(number) / f"{i}.jpg"), frame)
    rows = [f"{number},Happy,test\n" for number in range(len(shapes))]
    (root / "clips.csv").write_text("path,label,split\n" + "".join(rows))
    return root


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("split", ["train", "val", "test", "predict"])
def test_a_packed_root_reads_like_the_raw_one(name, split, packed):
    raw, store = (DATASETS[name](str(root), frames=5, size=24) for root in packed[name])
    tables = raw.clips(split), store.clips(split)
    assert tables[0][["name", "label"]].equals(tables[1][["name", "label"]])
    assert [len(source.names) for source in tables[0]["source"]] == [source.count for source in tables[1]["source"]]
    for index in range(len(tables[0])):
        for view in (0, 3):
            assert (raw.dataset(split).clip(index, view) == store.dataset(split).clip(index, view)).all()


def test_all_folds_are_packed(packed):
    for fold in range(1, 6):
        for part in ("train", "test"):
            raw, store = (DFEW(str(root), fold=fold).read_split(part) for root in packed["dfew"])
            assert raw.equals(store)
            assert None not in DFEW(str(packed["dfew"][1]), fold=fold).locate(raw["name"])


def test_only_named_clips_are_packed(own_dfew, tmp_path):
    write_clip(own_dfew / "Clip" / "clip_224x224" / "00999", ["1.jpg"], 0)
    assert "00999" not in Store(pack("dfew", str(own_dfew), str(tmp_path / "out"))).names


@pytest.mark.parametrize("size", [24, 40, 64])
def test_pixels_are_the_evaluation_s_view(size, tmp_path):
    raw = write_textured(tmp_path / "raw", [(60, 60), (60, 90), (80, 64), (24, 24)])
    out = pack("clips", str(raw), str(tmp_path / "out"), size=size)
    same, smaller = (
        [Clips(str(root), frames=3, size=shown).dataset("test") for root in (raw, out)] for shown in (size, 24)
    )
    for index in range(4):
        assert (same[0].clip(index) == same[1].clip(index)).all()
        difference = smaller[0].clip(index).astype(float) - smaller[1].clip(index)
        assert np.abs(difference).mean() < 4  # resized twice, of a contrast of 255
    with pytest.raises(InputError, match=rf"data.size is {size + 8}, .* holds frames of {size} px"):
        Clips(str(out), size=size + 8).clips("test")


def test_encoded_pictures_are_kept_byte_for_byte(tmp_path):
    raw = write_textured(tmp_path / "raw", [(60, 60), (60, 90), (24, 24)])
    out = pack("clips", str(raw), str(tmp_path / "out"), format="jpeg")
    assert (out / FRAMES).read_bytes() == b"".join(path.read_bytes() for path in sorted(raw.rglob("*.jpg")))
    for size in (24, 96):
        ours, theirs = (Clips(str(root), frames=3, size=size).dataset("test") for root in (raw, out))
        assert all((ours.clip(index) == theirs.clip(index)).all() for index in range(3))
    (clip,) = Clips(str(out)).locate(["1"])
    (frame,) = clip.read(lambda count: [2])
    assert (frame == read_image(raw / "1" / "2.jpg")).all()


@pytest.mark.parametrize("format", ["pixels", "jpeg"])
def test_frames_are_evenly_chosen(format, tmp_path):
    for number, count in enumerate((3, 12)):
        write_clip(tmp_path / "raw" / str(number), [f"{n}.jpg" for n in range(count)], 1)
    out = pack("clips", str(tmp_path / "raw"), str(tmp_path / "out"), format=format, frames=5)
    short, long = Clips(str(out)).locate(["0", "1"])
    assert content(np.stack(short.read(np.arange))) == (1, [0, 1, 2])
    assert content(np.stack(long.read(np.arange))) == (1, sampling.centred(12, 5).tolist())


def test_videos_are_packed_and_frames_that_are_only_promised_left_out(tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    write_clip(raw / "folder", ["1.jpg"], 0)
    for name in ("short", "whole"):
        write_video(raw / f"{name}.mp4", [np.full((32, 48, 3), 12 * number, np.uint8) for number in range(8)])

    def promised(path: str) -> int:
        return 8 + 4 * path.endswith("short.mp4")

    for module in ("reading", "pack"):
        monkeypatch.setattr(f"dfer_zoo.data.{module}.count_packets", promised)
    out = pack("clips", str(raw), str(tmp_path / "out"), size=32)
    ours, theirs = (Clips(str(root), frames=4, size=32).dataset("predict") for root in (raw, out))
    assert ours.names == theirs.names == ["folder", "short.mp4", "whole.mp4"]
    assert all(isinstance(source, PackedClip) for source in theirs.sources)
    assert [source.count for source in theirs.sources] == [1, 8, 8]
    assert all((ours.clip(i) == theirs.clip(i)).all() for i in range(3))
    with pytest.raises(DataError, match=r"2 clips are videos, first .*short\.mp4"):
        pack("clips", str(raw), str(tmp_path / "other"), format="jpeg")


def test_batches_are_stored_channels_last(packed):
    for root in packed["dfew"]:
        video = DFEW(str(root), frames=4, size=16).dataset("train")[[(0, 0), (0, 1)]].video
        assert video.dtype == torch.uint8
        assert video.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_store_travels_to_workers_without_its_frames(packed):
    (clip,) = DFEW(str(packed["dfew"][1])).locate(["00001"])
    frames = clip.read(np.arange)
    copy = pickle.dumps(clip)
    assert len(copy) < (packed["dfew"][1] / FRAMES).stat().st_size / 10
    assert np.array_equal(pickle.loads(copy).read(np.arange), frames)


def test_loader_workers_read_a_store(packed):
    data = DFEW(str(packed["dfew"][1]), frames=4, size=24, batch_size=7, workers=1)
    ours = list(data.test_dataloader())
    data.workers = 0
    assert all((a.video == b.video).all() for a, b in zip(ours, data.test_dataloader(), strict=True))


def test_a_clip_that_is_not_packed_is_missing(packed, tmp_path):
    root = tmp_path / "packed"
    shutil.copytree(packed["dfew"][1], root)
    with (root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_1.csv").open("a") as file:
        file.write("9999,1\n")
    with pytest.raises(DataError, match=r"1 of 15 clips .* are missing .*: 09999"):
        DFEW(str(root), size=24).clips("test")


@pytest.mark.parametrize("format", ["pixels", "jpeg"])
def test_killed_at_any_moment_the_same_words_go_on(format, tmp_path, monkeypatch):
    """Killed over and over, each time a little further on, the store becomes the one that was never interrupted."""
    raw, out = write_dfew(tmp_path / "raw", clips=35, frames=4), tmp_path / "out"
    whole = pack("dfew", str(raw), str(tmp_path / "whole"), format=format)
    monkeypatch.setattr(packing, "SHARD", 1000)  # every clip is a shard
    done: list[int] = []
    while not (out / HEADER).is_file():
        until = 0 if not done else done[-1] + 8
        words = {"data": "dfew", "root": str(raw), "out": str(out), "format": format, "workers": 2}
        process = multiprocessing.get_context("fork").Process(target=pack, kwargs=words)
        process.start()
        while process.is_alive() and (not (out / PACKING).is_dir() or len(records(out)) < until):
            time.sleep(0.001)
        process.kill()
        process.join()
        done.append(len(records(out)))
        if not (out / HEADER).is_file() and until:
            with pytest.raises(DataError, match=rf"not finished\. Continue: dfer-zoo pack dfew .* --out {out}"):
                DFEW(str(out)).clips("test")
    assert len(done) > 3
    assert files(out).keys() == files(whole).keys()
    assert all((out / name).read_bytes() == data for name, data in files(whole).items())


def records(out: Path) -> list[Path]:
    return list((out / PACKING).glob("0*.json"))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(packing, "SHARD", 24 * 24 * 3 * 2 * 10)  # ten clips of two frames


class Stop(Exception):
    pass


def pack_until(monkeypatch, raw: Path, out: Path, clips: int, error: BaseException) -> None:
    """Pack until that many clips are done, then raise."""
    original, done = packing.clip_bytes, []

    def failing(plan, number):
        if len(done) == clips:
            raise error
        done.append(number)
        return original(plan, number)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "clip_bytes", failing)
        pack("dfew", str(raw), str(out), size=24, workers=1)


def test_finished_shards_are_not_packed_again(own_dfew, tmp_path, monkeypatch, small_shards):
    out = tmp_path / "out"
    with pytest.raises(Stop):
        pack_until(monkeypatch, own_dfew, out, 25, Stop())
    packed_again = []
    original = packing.clip_bytes
    monkeypatch.setattr(packing, "clip_bytes", lambda plan, n: packed_again.append(n) or original(plan, n))
    pack("dfew", str(own_dfew), str(out), size=24)
    assert sorted(packed_again) == list(range(20, 70))
    assert check("dfew", str(out), every_frame=True) == 0


def test_an_interruption_waits_for_the_clip_in_hand_alone(own_dfew, tmp_path, monkeypatch):
    """A shard may take seconds; it is written again when the same words are repeated."""
    begun, told = threading.Event(), threading.Event()
    clips = []
    clip_bytes, shutdown = packing.clip_bytes, packing.ThreadPoolExecutor.shutdown

    def slow(plan, number):
        clips.append(number)
        begun.set()
        assert told.wait(20)
        return clip_bytes(plan, number)

    def interrupted(jobs):
        assert begun.wait(20)
        raise KeyboardInterrupt

    def shut_down(pool, wait=True, cancel_futures=False):
        if cancel_futures:
            told.set()
        shutdown(pool, wait=wait, cancel_futures=cancel_futures)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "clip_bytes", slow)
        patch.setattr(packing, "as_completed", interrupted)
        patch.setattr(packing.ThreadPoolExecutor, "shutdown", shut_down)
        with pytest.raises(KeyboardInterrupt):
            pack("dfew", str(own_dfew), str(tmp_path / "packed"), size=24, workers=1)
    assert len(clips) == 1
    assert not list((tmp_path / "packed" / PACKING).glob("0*.json"))
    assert pack("dfew", str(own_dfew), str(tmp_path / "packed"), size=24) == tmp_path / "packed"
    pack("dfew", str(own_dfew), str(tmp_path / "whole"), size=24)
    assert (tmp_path / "packed" / FRAMES).read_bytes() == (tmp_path / "whole" / FRAMES).read_bytes()


def test_a_full_disk_is_one_line_and_can_be_continued(own_dfew, tmp_path, monkeypatch, small_shards):
    out = tmp_path / "out"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(InputError, match=r"No space left on device\. Make room and repeat the same words") as raised:
        pack_until(monkeypatch, own_dfew, out, 25, full)
    assert "\n" not in str(raised.value)
    pack("dfew", str(own_dfew), str(out), size=24)
    assert check("dfew", str(out), every_frame=True) == 0


def test_too_small_a_disk_is_said_before_anything_is_written(own_dfew, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"needs 6.6 MiB and has 1.0 MiB.*--frames.*--format jpeg"):
        pack("dfew", str(own_dfew), str(out))
    assert not out.exists()
    pack("dfew", str(own_dfew), str(out), size=32)


def test_other_words_are_refused(own_dfew, tmp_path, monkeypatch, small_shards):
    unfinished, finished = tmp_path / "unfinished", pack("dfew", str(own_dfew), str(tmp_path / "finished"), size=24)
    with pytest.raises(Stop):
        pack_until(monkeypatch, own_dfew, unfinished, 25, Stop())
    for out in (unfinished, finished):
        before = files(out)
        for words in ({"size": 32}, {"size": 24, "frames": 1}, {"format": "jpeg"}):
            with pytest.raises(InputError, match=r"packed with other words .*repeat its words: dfer-zoo pack dfew"):
                pack("dfew", str(own_dfew), str(out), **words)
        assert files(out) == before


def test_the_same_words_leave_a_finished_store_alone(packed, capsys):
    raw, out = packed["clips"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    pack("clips", str(raw), str(out), size=24)
    assert "is packed already" in said(capsys)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_raw_data_that_changed_meanwhile_is_refused(own_dfew, tmp_path, monkeypatch, small_shards):
    out = tmp_path / "out"
    with pytest.raises(Stop):
        pack_until(monkeypatch, own_dfew, out, 25, Stop())
    (own_dfew / "Clip" / "clip_224x224" / "00003" / "2.jpg").unlink()
    with pytest.raises(InputError, match="changed since the packing began"):
        pack("dfew", str(own_dfew), str(out), size=24)


def test_a_folder_with_something_else_is_left_alone(own_dfew, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and holds no packed store"):
        pack("dfew", str(own_dfew), str(tmp_path / "mine"))
    assert files(tmp_path / "mine") == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("format", ["pixels", "jpeg"])
def test_a_damaged_frame_is_named(format, own_dfew, tmp_path):
    frame = own_dfew / "Clip" / "clip_224x224" / "00040" / "2.jpg"
    frame.write_bytes(frame.read_bytes()[:300])
    with pytest.raises(DataError, match=r"00040/2\.jpg .* is not a readable image"):
        pack("dfew", str(own_dfew), str(tmp_path / "out"), format=format)


@pytest.mark.parametrize("format", ["pixels", "jpeg"])
def test_missing_and_damaged_clips_can_be_left_out(format, own_dfew, tmp_path, monkeypatch, capsys, small_shards):
    frames, out = own_dfew / "Clip" / "clip_224x224", tmp_path / "out"
    shutil.rmtree(frames / "00001")
    (frames / "00040" / "2.jpg").write_bytes(b"")
    words = ["pack", "dfew", f"--root={own_dfew}", f"--out={out}", f"--format={format}", "--on_error=skip"]
    assert main(words) == 2
    assert "1 of 70 clips" in said(capsys)
    monkeypatch.setattr(packing, "MOST_LEFT_OUT", 1.5 / 70)
    assert main(words) == 2
    assert "2 of 70 clips had to be left out, more than 2% (00001: missing" in said(capsys)
    monkeypatch.setattr(packing, "MOST_LEFT_OUT", 2 / 70)
    assert main(words) == 0
    assert "2 of 70 clips are not in it" in said(capsys)
    listed = (out / "left_out.csv").read_text().splitlines()
    assert listed[:2] == ["clip,reason", "00001,missing or without frames"]
    assert listed[2].startswith("00040,The frame")
    raw, part = DFEW(str(own_dfew)), DFEW(str(out), on_error="skip")
    names = sorted({*raw.read_split("train")["name"], *raw.read_split("test")["name"]} - {"00001", "00040"})
    for source, packed in zip(raw.sources(names), part.locate(names), strict=True):
        assert content(packed.read(np.arange)) == content(source.read(np.arange))
    assert part.locate(["00001", "00040"]) == [None, None]
    with pytest.raises(DataError, match=r"2 of 14 clips .* are missing or have no frames: 00001, 00040"):
        part.clips("test")


def test_what_was_left_out_and_mended_is_packed(own_dfew, tmp_path, small_shards):
    frame, out = own_dfew / "Clip" / "clip_224x224" / "00040" / "2.jpg", tmp_path / "out"
    encoded = frame.read_bytes()
    frame.write_bytes(b"")
    with pytest.raises(DataError, match="1 of 70 clips had to be left out"):
        pack("dfew", str(own_dfew), str(out), size=24, on_error="skip")
    frame.write_bytes(encoded)
    pack("dfew", str(own_dfew), str(out), size=24, on_error="skip")
    assert files(out) == files(pack("dfew", str(own_dfew), str(tmp_path / "whole"), size=24))


def test_a_damaged_video_can_be_left_out(tmp_path, monkeypatch):
    root = tmp_path / "raw"
    root.mkdir()
    write_video(root / "whole.mp4", [np.full((32, 32, 3), 90, np.uint8)] * 3)
    (root / "broken.mp4").write_bytes(b"no video")
    (root / "clips.csv").write_text("path,label,split\nwhole.mp4,Happy,train\nbroken.mp4,Sad,train\n")
    with pytest.raises(DataError, match=r"broken\.mp4 is not a video"):
        pack("clips", str(root), str(tmp_path / "out"), size=24)
    monkeypatch.setattr(packing, "MOST_LEFT_OUT", 0.5)
    pack("clips", str(root), str(tmp_path / "out"), size=24, on_error="skip")
    assert Store(tmp_path / "out").names == ["whole.mp4"]


def damage_header(root: Path, **changes) -> None:
    header = json.loads((root / HEADER).read_text())
    (root / HEADER).write_text(json.dumps(header | changes))


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: os.truncate(root / FRAMES, 1000), r"is truncated: frames.bin has 1000 bytes of \d+"),
        (lambda root: flip(root / INDEX, 200), "has another index.npz than it was sealed with"),
        (lambda root: damage_header(root, version=0), "is of version 0; this dfer-zoo reads version 1"),
        (lambda root: (root / FRAMES).unlink(), "lacks frames.bin"),
        (lambda root: (root / INDEX).unlink(), "lacks index.npz"),
    ],
)
def test_a_damaged_store_is_refused_with_the_command_that_mends_it(damage, message, packed, tmp_path, capsys):
    raw, intact = packed["dfew"]
    root = tmp_path / "a store"
    shutil.copytree(intact, root)
    damage(root)
    with pytest.raises(DataError, match=message) as raised:
        DFEW(str(root)).clips("test")
    assert f"rm -r '{root}' && dfer-zoo pack dfew --root {raw} --size 24 --format pixels --out '{root}'" in str(
        raised.value
    )
    assert main(["check", "dfew", "--root", str(root)]) == 1
    assert main(["pack", "dfew", "--root", str(raw), "--size", "24", "--out", str(root)]) == 2
    assert message.split(":")[0] in said(capsys)


def test_an_unreadable_header_is_refused(packed, tmp_path):
    shutil.copytree(packed["dfew"][1], tmp_path / "store")
    (tmp_path / "store" / HEADER).write_text("{")
    with pytest.raises(DataError, match=r"of version None.*dfer-zoo pack --help"):
        DFEW(str(tmp_path / "store")).clips("test")


@pytest.mark.parametrize("format", ["pixels", "jpeg"])
def test_check_finds_flipped_bits(format, own_dfew, tmp_path, capsys):
    out = pack("dfew", str(own_dfew), str(tmp_path / "out"), format=format)
    assert check("dfew", str(out), every_frame=True) == 0
    flip(out / FRAMES)
    capsys.readouterr()
    assert check("dfew", str(out), every_frame=True) == 1
    assert "the frames of clip 00070 do not fit their checksum" in said(capsys)


def test_a_damaged_picture_in_a_store_is_named(own_dfew, tmp_path):
    out = pack("dfew", str(own_dfew), str(tmp_path / "out"), format="jpeg")
    for place in range(40):
        flip(out / FRAMES, place)
    (clip,) = DFEW(str(out)).locate(["00001"])
    with pytest.raises(DataError, match="holds a damaged picture: frame 0 of clip 00001"):
        clip.read(lambda count: [0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "8"], "size is 8; allowed: 16 or more"),
        (["--frames", "0"], "frames is 0; allowed: 1 or more"),
        (["--workers", "0"], "workers is 0; allowed: 1 or more"),
        (["--format", "jpeg", "--size", "128"], "keeps the pictures as they are"),
        (["--root", "nowhere"], "There is no folder nowhere"),
    ],
)
def test_wrong_words(words, message, dfew_root, tmp_path, capsys):
    given = ["--root", str(dfew_root), "--out", str(tmp_path / "out"), *words]
    assert main(["pack", "dfew", *given]) == 2
    assert message in said(capsys)
    assert not (tmp_path / "out").exists()


def test_a_store_is_not_packed_again(packed, tmp_path):
    with pytest.raises(InputError, match=r"is packed already\. Pass the raw folder"):
        pack("dfew", str(packed["dfew"][1]), str(tmp_path / "out"))


def write_large_store(root: Path, clips: int, size: int = 24) -> Path:
    """Write a packed FERV39k that says it has many clips; all of them are the same four frames."""
    names = [f"Action/Happy/{number:04}" for number in range(clips)]
    (root / "4_setups" / "All_scenes").mkdir(parents=True)
    for split, part in (("train", names[:-5]), ("test", names[-5:])):
        lines = "".join(f"{name} Happy\n" for name in part)
        (root / "4_setups" / "All_scenes" / f"{split}_All.csv").write_text(lines)
    (root / FRAMES).write_bytes(bytes(4 * size * size * 3))
    zeros = np.zeros(clips, np.int64)
    np.savez(root / INDEX, names=names, first=zeros, frames=zeros + 4, crc32=zeros, offsets=zeros[:0])
    header = {
        "version": VERSION,
        "words": {"data": "ferv39k", "size": size, "format": "pixels"},
        "bytes": (root / FRAMES).stat().st_size,
        "index_sha256": hashlib.sha256((root / INDEX).read_bytes()).hexdigest(),
    }
    (root / HEADER).write_text(json.dumps(header))
    return root


@pytest.mark.filterwarnings("ignore:No training clip")
def test_a_larger_store_asks_the_file_system_no_more_often(tmp_path, monkeypatch):
    """A call to a shared disk may take 10 ms: of each of 39 000 clips, minutes before the first step."""
    asked = []

    def noting(name: str, function):
        return lambda *args, **kwargs: asked.append((name, args[0])) or function(*args, **kwargs)

    roots = [write_large_store(tmp_path / str(clips), clips) for clips in (40, 400)]
    for module, name in ((os, "stat"), (os, "lstat"), (os, "scandir"), (os, "listdir"), (io, "open"), (os, "open")):
        monkeypatch.setattr(module, name, noting(f"{module.__name__}.{name}", getattr(module, name)))
    counts = []
    for root in roots:
        asked.clear()
        data = FERV39k(str(root), frames=4, size=24, batch_size=8, workers=0)
        data.setup("fit")
        assert next(iter(data.loader("train"))).video.shape == (8, 3, 4, 24, 24)
        counts.append(sum(str(root) in str(path) for _, path in asked))
    assert 5 < counts[0] == counts[1] < 30
