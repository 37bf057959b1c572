"""What people look at: timelines, contact sheets, annotated videos."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd

from dfer_zoo import figures
from dfer_zoo.data.transforms import GREY
from dfer_zoo.video.cropping import Square, crop
from dfer_zoo.video.footage import Footage, Progress, frames_of
from dfer_zoo.video.recognition import NOTICE
from dfer_zoo.video.windows import Window

if TYPE_CHECKING:
    from av.container import OutputContainer

MOMENTS, STRIP = 8, 6
"""Windows on a contact sheet, and frames shown of each."""
MOST_DOTS = 80
"""Segments of a person up to which a timeline has room for dots."""
STRIP_SIZE = 112
"""Side of a frame on a contact sheet, in pixels."""
LONGEST = 1280
"""Longest side of an annotated video, in pixels."""
PERSON_COLORS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))
"""RGB of the people's squares, in turn: Okabe and Ito's palette."""
CAPTION = 0.3, 0.5
"""Least and greatest size of the caption's letters, in those of OpenCV."""
TICKS = 60_000
"""Time stamps of an annotated video, a second: fine enough to keep those of the source; MPEG-4 takes up to 65535."""


def draw_timeline(table: pd.DataFrame, labels: Sequence[str], end: float, title: str, path: Path) -> Path:
    """Draw a person's probabilities over time, a row a class, a dot where a class is the strongest.

    The whole video is shown, but of one that is much longer than the person is there, that time alone.

    Args:
        table: the person's segments, by time.
        labels: the classes.
        end: of the video, in seconds.
        title: above the picture.
        path: PNG to write.
    """
    figure, ((axes,),) = figures.new_figure(1, 1, 7, 2.6)
    rows = np.arange(len(labels))
    middles = ((table["start"] + table["end"]) / 2).to_numpy()
    for first, last in unbroken(table):
        between = (middles[first : last - 1] + middles[first + 1 : last]) / 2
        edges = np.array([table["start"].iloc[first], *between, table["end"].iloc[last - 1]])
        shares = 100 * table[list(labels)].to_numpy()[first:last].T
        picture = axes.pcolormesh(edges, np.arange(len(labels) + 1) - 0.5, shares, cmap="Blues", vmin=0, vmax=100)
        if len(table) <= MOST_DOTS:
            color = np.where(shares.max(0) > 55, "white", "black")  # as in a confusion matrix
            axes.scatter((edges[:-1] + edges[1:]) / 2, shares.argmax(0), s=9, c=color, linewidths=0)
    axes.set_yticks(rows, labels)
    seen = table["start"].min(), table["end"].max()
    shown = (0, end) if end <= 5 * (seen[1] - seen[0]) else seen
    axes.set(ylim=(len(labels) - 0.5, -0.5), xlim=shown, xlabel="seconds")
    axes.set_title(title, fontsize=8)
    scale = figure.colorbar(picture, ax=axes, pad=0.01)
    scale.set_label("probability, percent", fontsize=8)
    scale.ax.tick_params(labelsize=7)
    return figures.save(figure, path)


def unbroken(table: pd.DataFrame) -> Iterator[tuple[int, int]]:
    """Yield the first row and the one after the last of each stretch of segments that touch."""
    gaps = np.flatnonzero(table["start"].to_numpy()[1:] > table["end"].to_numpy()[:-1]) + 1
    edges = [0, *gaps.tolist(), len(table)]
    yield from pairwise(edges)


def strongest(table: pd.DataFrame, count: int = MOMENTS) -> list[int]:
    """Return the index labels of the most confident segments that do not overlap, in order of time."""
    chosen: list[int] = []
    for index, row in table.sort_values("confidence", ascending=False, kind="stable").iterrows():
        others = table.loc[chosen]
        if len(chosen) < count and not ((others["start"] < row["end"]) & (row["start"] < others["end"])).any():
            chosen.append(index)
    return sorted(chosen, key=lambda index: table.loc[index, "start"])


def draw_contact_sheet(
    table: pd.DataFrame, strips: dict[int, np.ndarray], labels: Sequence[str], title: str, path: Path
) -> Path:
    """Draw a person's most confident segments: what was seen, and what the model says of it.

    Args:
        table: the person's segments.
        strips: for the index label of each segment shown, its frames ``(n, S, S, 3)``.
        labels: the classes.
        title: above the picture.
        path: PNG to write.
    """
    figure, axes = figures.new_figure(len(strips), 2, 7, 0.5 + 0.95 * len(strips))
    for (pictured, said), (index, strip) in zip(axes, strips.items(), strict=True):
        row = table.loc[index]
        figures.clip_strip(strip, pictured)
        when = f"{clock(row['start'])} to {clock(row['end'])}" if row["end"] else "still picture"
        pictured.set_title(f"{when}: {row['label']}, {100 * row['confidence']:.0f} %", fontsize=7, loc="left")
        figures.probability_bars(row[list(labels)].to_numpy(float), -1, said, labels)
        said.tick_params(labelsize=5)
    axes[-1, 1].set_xlabel("probability, percent", fontsize=7)
    figure.suptitle(title, fontsize=8)
    return figures.save(figure, path)


def clock(seconds: float) -> str:
    """Print a time.

    >>> clock(3.25), clock(3754.0)
    ('3.2 s', '1:02:34.0')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


class Annotation:
    """What is drawn on a frame: each person's square, number and segment whose middle is nearest; below, a caption.

    Args:
        footage: who is seen when.
        windows: of all people.
        table: their segments, row for row.
        model: what estimated them, and what it was trained on.
    """

    def __init__(self, footage: Footage, windows: list[Window], table: pd.DataFrame, model: str) -> None:
        self.footage = footage
        self.caption = f"Apparent expression, estimated by {model}"
        self.comment = f"{model}. {NOTICE}"
        rows: dict[int, list[int]] = {}
        for row, window in enumerate(windows):
            rows.setdefault(id(window.span), []).append(row)
        self.texts: dict[int, tuple[np.ndarray, list[str]]] = {}  # by the span's id
        for span, own in rows.items():
            middles = np.array([(windows[i].start + windows[i].end) / 2 for i in own])
            said = table.iloc[own][["person", "label", "confidence"]].itertuples(index=False)
            self.texts[span] = middles, [f"{person} {label} {100 * share:.0f}%" for person, label, share in said]

    def at(self, time: float) -> Iterator[tuple[int, Square, str]]:
        """Yield number, square and text of each person who is seen at a time."""
        for number, spans in enumerate(self.footage.people, 1):
            for span in spans:
                if span.start <= time <= span.end:
                    middles, said = self.texts[id(span)]
                    yield number, span.square(time), said[int(np.abs(middles - time).argmin())]

    def draw(self, picture: np.ndarray, time: float, scale: float) -> None:
        """Draw on a frame ``(H, W, 3)`` that was shrunk by `scale`."""
        width = max(1, round(picture.shape[0] / 240))
        for number, square, said in self.at(time):
            color = PERSON_COLORS[(number - 1) % len(PERSON_COLORS)]
            corners = scale * square.corners()
            cv2.polylines(picture, [corners.round().astype(np.int32)], True, color, width, cv2.LINE_AA)
            size = float(np.clip(scale * square.side / 250, 0.4, 0.8))
            label(picture, said, (corners[:, 0].min(), corners[:, 1].min()), size, color)
        write_below(picture, self.caption)


def label(
    picture: np.ndarray, text: str, corner: tuple[float, float], size: float, color: tuple[int, int, int]
) -> None:
    """Write text on a ground of a colour, above a corner, or as near to it as the picture has room."""
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    x = int(np.clip(corner[0], 0, max(picture.shape[1] - width - 4, 0)))
    y = int(np.clip(corner[1], height + below + 2, picture.shape[0]))
    cv2.rectangle(picture, (x, y - height - below - 2), (x + width + 4, y), color, cv2.FILLED)
    ink = (255, 255, 255) if np.dot(color, GREY) < 140 else (0, 0, 0)
    cv2.putText(picture, text, (x + 2, y - below), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)


def write_below(picture: np.ndarray, text: str) -> None:
    """Write text on black along the lower edge, in one line, or in more where the picture is narrow."""
    size = float(np.clip(picture.shape[1] / 1280, *CAPTION))
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    lines = textwrap.wrap(text, max(1, int(0.95 * picture.shape[1] / width * len(text))))
    for number, line in enumerate(reversed(lines)):
        label(picture, line, (0, picture.shape[0] - number * (height + below + 2)), size, (0, 0, 0))


def draw_video(
    annotation: Annotation, moments: dict[int, Window], path: Path | None, progress: Progress = lambda second: None
) -> Iterator[tuple[int, np.ndarray]]:
    """Read the video once more: write it with the people marked, and yield the frames of contact sheets on the way.

    Args:
        annotation: what to draw.
        moments: windows of which frames are wanted.
        path: MP4 to write (a PNG for a still picture), without sound; None for none.
        progress: called as the pass goes on.

    Yields:
        A window's key and its frames ``(STRIP, STRIP_SIZE, STRIP_SIZE, 3)`` uint8, as soon as the last has passed.
    """
    footage = annotation.footage
    wanted: dict[int, list[tuple[int, int]]] = {}  # frame -> windows, and places in their strips
    for key, window in moments.items():
        for place, frame in enumerate(footage.frames(window.start, window.end, STRIP).tolist()):
            wanted.setdefault(frame, []).append((key, place))
    strips: dict[int, np.ndarray] = {}
    scale = min(1.0, LONGEST / max(footage.shape))
    still = footage.end == 0
    with writing(None if still else path, footage, scale, annotation.comment) as write:
        for position, (time, frame) in enumerate(frames_of(footage.path)):
            if position not in wanted and path is None:
                continue
            picture = frame()
            for key, place in wanted.pop(position, ()):
                strip = strips.setdefault(key, np.zeros((STRIP, STRIP_SIZE, STRIP_SIZE, 3), np.uint8))
                strip[place] = crop(picture, moments[key].span.square(time), STRIP_SIZE)
                if place == STRIP - 1:
                    yield key, strips.pop(key)
            if path is not None:
                height, width = (max(2, round(scale * side)) for side in footage.shape)
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
                annotation.draw(picture, time, scale)
                if still:
                    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
                write(picture, time)
            progress(time)


@contextmanager
def writing(path: Path | None, footage: Footage, scale: float, comment: str):
    """Open a video file and hand over the function that adds a frame at a second; of no file, one that does nothing."""
    if path is None:
        yield lambda picture, time: None
        return
    import av

    rate = Fraction(max(len(footage.times) / footage.end, 1)).limit_denominator(1000)
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = comment
        stream = add_stream(container, rate)
        stream.height, stream.width = (max(2, round(scale * side) // 2 * 2) for side in footage.shape)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)

        def write(picture: np.ndarray, time: float) -> None:
            even = np.ascontiguousarray(picture[: stream.height, : stream.width])
            frame = av.VideoFrame.from_ndarray(even, "rgb24")
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))

        yield write
        container.mux(stream.encode())


def add_stream(container: "OutputContainer", rate: Fraction):
    """Add a stream of H.264, which every browser plays, or of MPEG-4 where this FFmpeg cannot encode H.264."""
    import av

    try:
        return container.add_stream("libx264", rate, options={"crf": "20", "preset": "veryfast"})
    except (av.FFmpegError, ValueError):
        stream = container.add_stream("mpeg4", rate)
        stream.bit_rate = 6_000_000
        return stream
