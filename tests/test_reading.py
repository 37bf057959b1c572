"""Frames come back from folders and videos: the ones asked for, upright, or a plain error."""

import errno
import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import simplejpeg
from av.stream import Disposition
from conftest import write_clip, write_video
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from dfer_zoo.data import sampling
from dfer_zoo.data.reading import (
    FrameFolder,
    VideoFile,
    count_packets,
    decode_image,
    list_frames,
    natural_key,
    read_image,
    timed_frames,
)
from dfer_zoo.data.transforms import Augmentation, Evaluation
from dfer_zoo.errors import DataError

IDENTITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
CLOCKWISE = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
"""Display matrices of an MP4 track: as stored, and turned a quarter clockwise by the player."""


def numbered(count: int) -> list[np.ndarray]:
    """Frames whose grey value is 12 times their number."""
    return [np.full((32, 48, 3), 12 * number, np.uint8) for number in range(count)]


def numbers(frames: list[np.ndarray]) -> list[int]:
    return [round(float(frame.mean()) / 12) for frame in frames]


@given(st.lists(st.integers(0, 10**6), unique=True), st.sampled_from(["{}.jpg", "frame_{}.png", "{:04d}.jpg"]))
def test_natural_order_is_the_order_of_the_numbers(values, pattern):
    names = [pattern.format(value) for value in values]
    assert sorted(names, key=natural_key) == [pattern.format(value) for value in sorted(values)]


@given(st.lists(st.text()))
def test_any_names_can_be_ordered(names):
    assert sorted(sorted(names, key=natural_key)) == sorted(names)


def test_list_frames_takes_images_only_in_order_of_time(tmp_path):
    for name in ("10.jpg", "9.JPG", "1.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).touch()
    missing, file = tmp_path / "nowhere", tmp_path / "notes.txt"
    assert list_frames([tmp_path, missing, file, ""]) == [("1.png", "9.JPG", "10.jpg"), (), (), ()]


def test_a_folder_without_permission_is_empty(tmp_path, monkeypatch):
    write_clip(tmp_path / "open", ["1.jpg"], color=3)
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)  # the tests may run as a user who may read everything
    assert list_frames([tmp_path / "closed", tmp_path / "open"]) == [(), ("1.jpg",)]


def test_a_folder_name_that_no_file_system_takes_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot be listed"):
        list_frames([tmp_path / ("9" * 300)])


def test_frame_folder_reads_the_frames_asked_for(tmp_path):
    write_clip(tmp_path / "clip", ["1.jpg", "2.jpg", "10.jpg"], color=3)
    clip = FrameFolder(str(tmp_path / "clip"), list_frames([tmp_path / "clip"])[0])
    counts = []
    frames = clip.read(lambda count: counts.append(count) or np.array([0, 0, 2]))
    assert counts == [3]
    assert [round(frame[..., 1].mean() / 8) for frame in frames] == [0, 0, 2]
    assert [round(frame[..., 0].mean()) for frame in frames] == [pytest.approx(110, abs=3)] * 3  # red comes first
    assert max(frame[..., 2].mean() for frame in frames) < 4


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut off"])
def test_an_unreadable_frame_is_named(tmp_path, content):
    (tmp_path / "7.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"7\.jpg .* not a readable image"):
        FrameFolder(str(tmp_path), ("7.jpg",)).read(lambda count: np.array([0]))


def test_a_vanished_frame_is_named(tmp_path):
    with pytest.raises(DataError, match=r"8\.jpg cannot be read: No such file"):
        read_image(tmp_path / "8.jpg")


def test_a_grey_picture_has_three_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((8, 9), 77, np.uint8))
    assert (read_image(tmp_path / "grey.png") == np.full((8, 9, 3), 77)).all()


@pytest.mark.parametrize("kind", ["plain", "progressive", "grey", "full colour", "turned", "png"])
def test_every_picture_reads_as_opencv_reads_it(kind, tmp_path):
    """The pixels are OpenCV's whoever decodes, turned pictures upright."""
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8), (75, 41))
    image = Image.fromarray(smooth).convert("L" if kind == "grey" else "RGB")
    exif = image.getexif()
    options = {"plain": {}, "progressive": {"progressive": True}, "full colour": {"subsampling": 0}}.get(kind, {})
    if kind == "turned":
        exif[ExifTags.Base.Orientation] = 6
        options = {"exif": exif}
    path = tmp_path / ("a.png" if kind == "png" else "a.jpg")
    image.save(path, **options)
    read = read_image(path)
    assert (read == cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)).all()
    assert read.shape == ((75, 41, 3) if kind == "turned" else (41, 75, 3))


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "png"), ("1", "bmp")]
)
def test_pictures_of_other_modes_look_as_in_any_viewer(tmp_path, mode, suffix):
    red, green, blue = np.meshgrid(np.linspace(0, 255, 32), np.linspace(0, 255, 24), [90.0])
    picture = Image.fromarray(np.dstack([red, green, blue]).astype(np.uint8)).convert(mode)
    picture.save(tmp_path / f"picture.{suffix}", **({"quality": 100, "subsampling": 0} if suffix == "jpg" else {}))
    difference = read_image(tmp_path / f"picture.{suffix}") - np.asarray(picture.convert("RGB"), float)
    assert np.abs(difference).mean() < 3


def test_a_picture_of_16_bits_a_channel(tmp_path):
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    cv2.imwrite(str(tmp_path / "deep.png"), values)
    assert (read_image(tmp_path / "deep.png") == (values // 257)[..., None]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3000, 4000)])
def test_tiny_and_huge_pictures_become_clips(tmp_path, size):
    cv2.imwrite(str(tmp_path / "1.png"), np.full((*size, 3), 99, np.uint8))
    frame = read_image(tmp_path / "1.png")
    assert frame.shape == (*size, 3)
    assert (Evaluation(32)([frame]) == 99).all()
    assert Augmentation(32)([frame], np.random.default_rng(0)).shape == (1, 32, 32, 3)


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_a_jpeg_file_that_is_cut_off_is_named(tmp_path, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    encoded = cv2.imencode(".jpg", noise)[1].tobytes()
    (tmp_path / "9.jpg").write_bytes(encoded + b" written behind the end by a camera")
    read_image(tmp_path / "9.jpg")
    (tmp_path / "9.jpg").write_bytes(encoded[: int(kept * len(encoded))])
    with pytest.raises(DataError, match=r"9\.jpg .* is not a readable image"):
        read_image(tmp_path / "9.jpg")


def jpeg(**options) -> bytes:
    """A picture of soft colours, some 9 kB."""
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8), (224, 224))
    file = BytesIO()
    Image.fromarray(smooth).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("exif", [False, True])
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_jpeg_is_refused_wherever_damage_breaks_its_code(exif, data):
    """Marks of the format where none belong; OpenCV returns a picture whose rest is grey or torn."""
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    encoded = jpeg(**({"exif": turned} if exif else {}))
    scan = encoded.index(b"\xff\xda") + 20
    place = data.draw(st.integers(scan, len(encoded) - 10))
    damage = b"\xff" + bytes([data.draw(st.integers(0xC0, 0xFE).filter(lambda mark: not 0xD0 <= mark <= 0xD7))])
    assert decode_image(encoded) is not None
    assert decode_image(encoded[:place] + damage + encoded[place + 2 :]) is None


def test_a_jpeg_of_a_kind_that_only_opencv_knows():
    """Each colour with another sampling: 64 x 8 grey pixels in 24 blocks are the same bytes as 48 x 16 of them."""
    file = BytesIO()
    Image.new("RGB", (64, 8), (128, 128, 128)).save(file, "JPEG", keep_rgb=True)
    encoded = bytearray(file.getvalue())
    frame = encoded.index(b"\xff\xc0")
    encoded[frame + 5 : frame + 9] = struct.pack(">HH", 16, 48)
    encoded[frame + 11 : frame + 19 : 3] = b"\x22\x12\x21"
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(bytes(encoded), "RGB")
    assert (decode_image(bytes(encoded)) == np.full((16, 48, 3), 128)).all()


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def jpeg_header(width: int, height: int) -> bytes:
    encoded = jpeg()
    size = encoded.index(b"\xff\xc0") + 5
    return encoded[:size] + struct.pack(">HH", height, width) + encoded[size + 4 :]


BMP_HEADER = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "encoded",
    [png_header(50000, 50000), png_header(2**31 - 1, 9), BMP_HEADER + bytes(100), jpeg_header(65000, 65000)],
    ids=["png", "wide png", "bmp", "jpeg"],
)
def test_a_small_file_that_claims_a_huge_picture_is_refused(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_: pytest.fail("it would ask for 12 GiB"))
    (tmp_path / "1.jpg").write_bytes(encoded)
    with pytest.raises(DataError, match=r"1\.jpg .* is not a readable image"):
        read_image(tmp_path / "1.jpg")


def test_a_picture_that_the_memory_does_not_hold_is_refused(tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError

    (tmp_path / "1.jpg").write_bytes(jpeg())
    monkeypatch.setattr(simplejpeg, "decode_jpeg", full)
    with pytest.raises(DataError, match="is not a readable image"):
        read_image(tmp_path / "1.jpg")


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "mpeg4"), (".mp4", "libx264"), (".mkv", "mpeg4")])
def test_video_frames_are_exact(tmp_path, suffix, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    frames = numbered(20)
    path = write_video(tmp_path / f"clip{suffix}", frames, codec)
    assert count_packets(str(path)) == 20
    clip = VideoFile(str(path))
    expected = np.array([frame.mean() for frame in frames])
    for wanted in ([0], [19], [0, 7, 8, 19], [3, 3, 3, 11], list(range(20)), sampling.centred(20, 6).tolist()):
        read = clip.read(lambda count, wanted=wanted: np.array(wanted))
        assert [int(np.abs(expected - frame.mean()).argmin()) for frame in read] == wanted
    assert read[0].shape == (32, 48, 3)
    assert read[0].dtype == np.uint8


def test_frames_are_prepared_once_each(tmp_path):
    write_clip(tmp_path / "clip", ["1.jpg", "2.jpg"], color=3)
    video = write_video(tmp_path / "clip.mp4", numbered(3))
    for clip in (FrameFolder(str(tmp_path / "clip"), ("1.jpg", "2.jpg")), VideoFile(str(video))):
        seen = []
        frames = clip.read(lambda count: np.array([0, 1, 1]), lambda frame, seen=seen: seen.append(frame) or frame[:4])
        assert [frame.shape[0] for frame in frames] == [4, 4, 4]
        assert len(seen) == 2 if isinstance(clip, FrameFolder) else len(seen) >= 2


def test_a_short_video_is_stretched(tmp_path):
    path = write_video(tmp_path / "clip.mp4", numbered(3))
    frames = VideoFile(str(path)).read(lambda count: sampling.centred(count, 8))
    assert numbers(frames) == [0, 0, 0, 1, 1, 2, 2, 2]


def test_colours_of_a_video_are_rgb(tmp_path):
    path = write_video(tmp_path / "red.mp4", [np.full((32, 32, 3), (200, 40, 20), np.uint8)] * 3)
    (frame,) = VideoFile(str(path)).read(lambda count: np.array([1]))
    assert np.abs(frame.mean(axis=(0, 1)) - (200, 40, 20)).max() < 8


def test_a_video_filmed_upright_is_turned_upright(tmp_path):
    upright = np.zeros((64, 32, 3), np.uint8)
    upright[:16] = 240  # bright above
    stored = np.ascontiguousarray(np.rot90(upright))
    path = write_video(tmp_path / "phone.mp4", [stored] * 3)
    content = path.read_bytes()
    start = content.index(IDENTITY, content.index(b"tkhd"))
    path.write_bytes(content[:start] + CLOCKWISE + content[start + len(IDENTITY) :])
    (frame,) = VideoFile(str(path)).read(lambda count: np.array([0]))
    assert frame.shape == (64, 32, 3)
    assert np.abs(frame.astype(int) - upright).mean() < 8


@pytest.mark.parametrize("content", [b"", b"this is a text file, whatever its name says\n" * 40])
def test_what_is_no_video_is_a_data_error(tmp_path, content):
    path = tmp_path / "talk.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"talk\.mp4 is not a video"):
        VideoFile(str(path)).read(lambda count: np.array([0]))


def test_a_missing_video_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"gone\.mp4"):
        VideoFile(str(tmp_path / "gone.mp4")).read(lambda count: np.array([0]))


def test_sound_without_pictures_is_a_data_error(tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(DataError, match="no video stream"):
        VideoFile(str(path)).read(lambda count: np.array([0]))


def write_song(path: Path, moving: int) -> Path:
    """Write sound with a cover picture and, behind it, a stream of moving pictures."""
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        streams = [container.add_stream("mjpeg"), *([container.add_stream("mpeg4", rate=10)] if moving else [])]
        streams[0].disposition = Disposition.attached_pic
        for stream, pixels in zip(streams, ("yuvj420p", "yuv420p"), strict=False):
            stream.height, stream.width, stream.pix_fmt = 32, 48, pixels
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        for stream, frames in ((streams[0], numbered(1)), *((stream, numbered(moving)) for stream in streams[1:])):
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame + 60, "rgb24")))
            container.mux(stream.encode())
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    return path


def test_the_cover_of_a_song_is_no_video(tmp_path):
    song = write_song(tmp_path / "song.m4a", moving=0)
    with av.open(str(song)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(DataError, match="no video stream"):
        VideoFile(str(song)).read(lambda count: np.array([0]))
    film = VideoFile(str(write_song(tmp_path / "film.mp4", moving=6)))
    assert numbers(film.read(lambda count: np.arange(count))) == [5, 6, 7, 8, 9, 10]


def test_a_name_with_a_colon_or_a_percent_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.mp4", "take %03d.mp4", "file:a.mp4", "-i.mp4"):
        write_video(tmp_path / "a.mp4", numbered(3)).rename(name)
        assert numbers(VideoFile(name).read(lambda count: np.arange(count))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "playlist"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.0,\nother.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile 'other.mp4'\n"),
    ],
)
def test_a_list_of_other_videos_is_no_video(tmp_path, name, playlist):
    write_video(tmp_path / "other.mp4", numbered(20), rate=25)
    (tmp_path / name).write_text(playlist)
    with av.open(str(tmp_path / name)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20  # FFmpeg would read it
    with pytest.raises(DataError, match="is not a video"):
        VideoFile(str(tmp_path / name)).read(lambda count: np.array([0]))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(suffix, "mpeg4") for suffix in (".mp4", ".mov", ".m4v", ".3gp", ".avi", ".mkv")]
    + [(".webm", "libvpx"), (".flv", "flv"), (".mpg", "mpeg1video"), (".mpeg", "mpeg2video"), (".wmv", "wmv2")],
)
def test_videos_of_every_usual_kind_are_read(tmp_path, suffix, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = write_video(tmp_path / f"clip{suffix}", numbered(4), codec, rate=25)
    assert numbers(VideoFile(str(path)).read(lambda count: np.arange(count))) == [0, 1, 2, 3]


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_cut_off_video_gives_its_frames_or_a_data_error(tmp_path, kept):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(20)]
    path = write_video(tmp_path / "cut.mkv", frames, "mpeg4")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    read = VideoFile(str(path)).read(lambda count: sampling.centred(count, 4))
    assert len(read) == 4
    mp4 = write_video(tmp_path / "cut.mp4", frames, "mpeg4")  # its index stands at the end
    mp4.write_bytes(mp4.read_bytes()[: int(kept * len(content))])
    with pytest.raises(DataError, match=r"cut\.mp4"):
        VideoFile(str(mp4)).read(lambda count: sampling.centred(count, 4))


def test_a_video_whose_index_promises_more_is_chosen_from_again(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", numbered(10))
    monkeypatch.setattr("dfer_zoo.data.reading.count_packets", lambda path: 14)
    counts = []
    frames = VideoFile(str(path)).read(lambda count: counts.append(count) or sampling.centred(count, 5))
    assert counts == [14, 10]
    assert numbers(frames) == sampling.centred(10, 5).tolist()


def test_a_video_that_is_damaged_midway_is_refused_and_one_whose_end_is_damaged_is_read(tmp_path):
    """The frames before damage are of another time than the clip; a damaged frame at the end makes no difference."""
    path = write_video(tmp_path / "hurt.mp4", numbered(20))
    intact = path.read_bytes()
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]

    def hurt(number: int) -> None:
        start, size = places[number]
        path.write_bytes(intact[:start] + bytes(size) + intact[start + size :])

    hurt(10)
    with pytest.raises(DataError, match=r"hurt\.mp4 is damaged behind its frame \d+\."):
        VideoFile(str(path)).read(lambda count: sampling.centred(count, 8))
    hurt(19)
    frames = VideoFile(str(path)).read(lambda count: sampling.centred(count, 8))
    assert len(frames) == 8
    assert len(list(timed_frames(str(path)))) >= 18


def test_a_video_of_which_no_frame_can_be_decoded(tmp_path):
    path = write_video(tmp_path / "blank.mp4", numbered(5))
    raw = path.read_bytes()
    start, end = raw.index(b"mdat") + 4, raw.index(b"moov") - 4
    path.write_bytes(raw[:start] + bytes(end - start) + raw[end:])
    with pytest.raises(DataError, match=r"blank\.mp4 has no readable video frame"):
        VideoFile(str(path)).read(lambda count: sampling.centred(count, 5))


def test_names_of_any_length_are_sorted():
    """Python refuses to read a number of thousands of digits."""
    names = ["9" * 5000, "10", "2"]
    assert sorted(names, key=natural_key) == ["2", "10", "9" * 5000]
