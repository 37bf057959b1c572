"""Read clips from disk: folders of frames and video files."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg

from dfer_zoo.errors import DataError

if TYPE_CHECKING:
    from av import VideoStream

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".flv", ".mpg", ".mpeg", ".wmv")

CONTAINERS = "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,asf,ogg,gif,apng"
"""FFmpeg's names of the formats that videos are read from: none that names other files to be read, as playlists do."""

LEAST_DECODED = 0.9
"""Share of a video's frames that must come before damage: a recording may be cut off, but a clip's label is of all."""

MOST_PIXELS = 100_000_000
"""Of a JPEG, whose header alone could ask for 12 GiB. OpenCV refuses other pictures above 2^30 pixels by itself."""

MOST_DIGITS = 1000
"""Digits of what is no number any more: Python refuses to read those of several thousand."""

Choose = Callable[[int], np.ndarray]
"""From the number of frames of a clip to the indices wanted, not decreasing."""

Prepare = Callable[[np.ndarray], np.ndarray]
"""What is done to each frame as soon as it is decoded, so that large ones are not held in memory."""


def as_decoded(frame: np.ndarray) -> np.ndarray:
    """Return a frame as it is."""
    return frame


@lru_cache(2**15)  # the clips of a dataset name their frames alike: 1.jpg, 2.jpg, ...
def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort ``2.jpg`` before ``10.jpg``.

    >>> sorted(["10.jpg", "2.jpg", "1.jpg"], key=natural_key)
    ['1.jpg', '2.jpg', '10.jpg']
    """
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return tuple((0, int(part)) if part.isdecimal() and len(part) < MOST_DIGITS else (1, part) for part in parts)


@dataclass(frozen=True)
class FrameFolder:
    """A clip stored as a folder of images.

    Args:
        path: the folder.
        names: its image files, in order of time.
    """

    path: str
    names: tuple[str, ...]

    def read(self, choose: Choose, prepare: Prepare = as_decoded) -> list[np.ndarray]:
        """Decode the chosen frames, each once, as ``(H, W, 3)`` uint8 RGB.

        Raises:
            DataError: a frame that is no readable image.
        """
        return read_each_once(choose(len(self.names)), lambda i: prepare(read_image(Path(self.path, self.names[i]))))


@dataclass(frozen=True)
class VideoFile:
    """A clip stored as a video file.

    Args:
        path: the file.
    """

    path: str

    def read(self, choose: Choose, prepare: Prepare = as_decoded) -> list[np.ndarray]:
        """Decode the chosen frames as ``(H, W, 3)`` uint8 RGB, upright, holding no others in memory.

        Raises:
            DataError: not a video, one without a readable frame, or damaged before `LEAST_DECODED` of its frames.
        """
        count = count_packets(self.path)
        while True:
            wanted = choose(count).tolist()
            frames: list[np.ndarray] = []
            decoded = 0
            for decoded, (_, frame) in enumerate(timed_frames(self.path, least=LEAST_DECODED * count), 1):
                if copies := wanted.count(decoded - 1):
                    frames.extend([prepare(frame())] * copies)
                if len(frames) == len(wanted):
                    return frames
            if decoded == 0:
                raise DataError(f"{self.path} has no readable video frame. Is the file complete?")
            count = decoded  # some packets hold no picture: choose again among the frames there are


def read_each_once(indices: Sequence[int], read: Callable[[int], np.ndarray]) -> list[np.ndarray]:
    """Read the frames of the given indices in their order; one that is asked for again is not read again."""
    wanted = [int(i) for i in indices]
    frames = {i: read(i) for i in dict.fromkeys(wanted)}
    return [frames[i] for i in wanted]


def read_image(path: Path) -> np.ndarray:
    """Decode an image file to ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: missing, unreadable, not an image, damaged, or too large.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"The frame {path} cannot be read: {error.strerror}.") from error
    image = decode_image(encoded)
    if image is None:
        raise DataError(f"The frame {path} ({len(encoded)} bytes) is not a readable image. Extract the clip again.")
    return image


def decode_image(encoded: bytes) -> np.ndarray | None:
    """Decode an image to ``(H, W, 3)`` uint8 RGB, upright; None if it is none, damaged, or larger than `MOST_PIXELS`.

    A JPEG goes through simplejpeg, which gives OpenCV's pixels in four fifths of the time and refuses damage of which
    OpenCV makes grey. It knows nothing of the orientation that Exif data may ask for: pictures with Exif data are only
    checked by it, then left to OpenCV, as are all other formats.
    """
    try:
        if (size := _jpeg_size(encoded)) is not None:
            if size[0] * size[1] > MOST_PIXELS:
                return None
            if b"Exif\0" not in encoded:
                return simplejpeg.decode_jpeg(encoded, "RGB")
            simplejpeg.decode_jpeg(encoded, "RGB", min_height=1, min_width=1)  # all bytes, but an eighth of the size
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) if encoded else None
    except (ValueError, MemoryError, cv2.error):
        return None


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Return height and width of a JPEG; None for all else, and for rare samplings that simplejpeg does not know."""
    if encoded.startswith(b"\xff\xd8"):
        with suppress(ValueError, KeyError):
            return simplejpeg.decode_jpeg_header(encoded, strict=False)[:2]
    return None


@contextmanager
def _open_video(path: str) -> Iterator["VideoStream"]:
    """Open the stream of moving pictures of a file: not the cover picture that a recording of sound may have."""
    import av
    from av.stream import Disposition

    try:
        # With its protocol, the name may hold a colon.
        container = av.open(f"file:{path}", options={"format_whitelist": CONTAINERS})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path} is not a video that FFmpeg can read ({error.__class__.__name__}).") from error
    with container:
        streams = [stream for stream in container.streams.video if Disposition.attached_pic not in stream.disposition]
        if not streams:
            raise DataError(f"{path} has no video stream.")
        yield streams[0]


def count_packets(path: str) -> int:
    """Count the pictures of a video without decoding them.

    Raises:
        DataError: not a video, or without a video stream.
    """
    import av

    with _open_video(path) as stream:
        try:
            count = sum(packet.size > 0 for packet in stream.container.demux(stream))
        except av.FFmpegError as error:
            raise DataError(f"{path} is damaged: {error}.") from error
    if count == 0:
        raise DataError(f"{path} has a video stream without a single frame.")
    return count


def timed_frames(path: str, least: float = 0) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Decode a video frame by frame: the second at which each is shown, and what converts it to upright RGB.

    The conversion is left to the caller, since most frames are passed over. Times are the file's own, which need not be
    evenly spaced; they start at 0 and rise strictly. A frame without a time, or with one that does not rise, comes one
    average frame after the last.

    Args:
        path: the file.
        least: frames that must come before damage, which otherwise ends the video.

    Raises:
        DataError: not a video, without a video stream, or damaged too early.
    """
    import av

    with _open_video(path) as stream:
        stream.thread_type = "AUTO"
        step = 1 / float(stream.average_rate or 25)
        start, time, shown = None, -step, 0
        try:
            for frame in stream.container.decode(stream):
                shown += 1
                start = frame.time if start is None else start
                stamp = time if frame.time is None else frame.time - start
                time = stamp if stamp > time else time + step
                yield time, lambda frame=frame: _upright(frame)
        except av.FFmpegError as error:
            if 0 < shown < least:
                raise DataError(f"{path} is damaged behind its frame {shown}. Copy or record it again.") from error


def video_seconds(path: str) -> float | None:
    """Return how long a video says it is, None if it does not.

    Raises:
        DataError: not a video, or without a video stream.
    """
    with _open_video(path) as stream:
        return stream.container.duration / 1e6 if stream.container.duration else None


def _upright(frame) -> np.ndarray:
    """Convert a decoded frame to ``(H, W, 3)`` RGB, turned as the file's rotation metadata asks."""
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns))


def is_file(path: str | os.PathLike) -> bool:
    """Return whether a path leads to a file: not where this user may not look, nor by a name that no file can have."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def is_inside(real: str, folder: str) -> bool:
    """Return whether a path lies under a folder, both resolved."""
    return os.path.commonpath([real, folder]) == folder


def list_frames(folders: Sequence[str | os.PathLike], inside: str | None = None) -> list[tuple[str, ...]]:
    """List the image files of many folders in order of time, each folder once.

    A folder that is missing, or that this user may not read, has none.

    Args:
        folders: to list.
        inside: the folder, resolved, under which images must lie that are links; None allows every link.

    Raises:
        DataError: a link that leaves `inside`, or a folder that cannot be, such as by its name.
    """

    def names(folder: str | os.PathLike) -> tuple[str, ...]:
        try:
            with os.scandir(folder) as entries:
                found = [entry for entry in entries if entry.name.lower().endswith(IMAGE_SUFFIXES)]
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return ()
        except OSError as error:
            raise DataError(f"The folder {folder} cannot be listed: {error.strerror}.") from error
        for entry in found:
            if inside is not None and entry.is_symlink() and not is_inside(os.path.realpath(entry.path), inside):
                raise DataError(f"{entry.path} leaves {inside}. Set data.allow_outside: true if you trust this folder.")
        return tuple(sorted((entry.name for entry in found), key=natural_key))

    blocks = [folders[start : start + 256] for start in range(0, len(folders), 256)]
    with ThreadPoolExecutor(16) as pool:  # the time is the file system's, not ours
        return [found for block in pool.map(lambda block: [*map(names, block)], blocks) for found in block]
