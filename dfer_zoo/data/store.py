"""The packed store: the frames of a dataset in one file that is mapped into memory.

::

    PACKED/
      store.json    version, the words that made it, checksum of the index; written last, so that it seals the store
      index.npz     of each clip: name, first frame, number of frames, CRC-32 of its bytes
      frames.bin    the frames one after the other: pixels, or encoded pictures and their offsets in the index
      ...           the dataset's own label tables, where they are in the raw folder

``dfer-zoo pack`` (`dfer_zoo.data.pack`) writes it; every dataset reads it where its root is one.
"""

import hashlib
import json
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from dfer_zoo.data.reading import Choose, Prepare, as_decoded, decode_image, read_each_once
from dfer_zoo.errors import DataError

VERSION = 1
"""Version of the layout; raised whenever an older store would be read wrongly."""

HEADER, INDEX, FRAMES = "store.json", "index.npz", "frames.bin"
PACKING = "packing"
"""Folder inside an unfinished store, with what is needed to continue."""


def is_packed(root: Path) -> bool:
    """Return whether a folder is a packed store, finished or not."""
    return (root / HEADER).is_file() or (root / PACKING).is_dir()


def read_header(root: Path) -> dict[str, Any]:
    """Read the header of a store, finished or not; none or a damaged one reads as empty."""
    path = root / HEADER if (root / HEADER).is_file() else root / PACKING / HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


def pack_command(words: dict[str, Any], out: Path) -> str:
    """Return the command line that packs with the given words; how to ask for one where they are lost."""
    if "data" not in words:
        return "dfer-zoo pack --help"
    options = {name: value for name, value in {**words, "out": out}.items() if name != "data" and value is not None}
    return shlex.join(["dfer-zoo", "pack", words["data"], *(w for k, v in options.items() for w in (f"--{k}", str(v)))])


class Store:
    """A finished store, open for reading. Its processes share the file's pages; none holds it in memory.

    Args:
        root: folder of the store.

    Raises:
        DataError: not finished, of another version, truncated or damaged; the message holds the command that mends it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        header = read_header(root)
        self.words = header.get("words", {})
        if not (root / HEADER).is_file():
            raise DataError(f"The packing of {root} is not finished. Continue: {pack_command(self.words, root)}")
        if header.get("version") != VERSION:
            raise self.damage(f"is of version {header.get('version')}; this dfer-zoo reads version {VERSION}")
        for name in (INDEX, FRAMES):
            if not (root / name).is_file():
                raise self.damage(f"lacks {name}")
        index = (root / INDEX).read_bytes()
        if hashlib.sha256(index).hexdigest() != header.get("index_sha256"):
            raise self.damage(f"has another {INDEX} than it was sealed with")
        if (size := (root / FRAMES).stat().st_size) != header.get("bytes"):
            raise self.damage(f"is truncated: {FRAMES} has {size} bytes of {header.get('bytes')}")
        with np.load(BytesIO(index)) as arrays:
            self.names: list[str] = arrays["names"].tolist()
            self.first, self.frames, self.crc32 = arrays["first"], arrays["frames"], arrays["crc32"]
            self.offsets = arrays["offsets"] if self.words["format"] == "jpeg" else None
        self.size: int | None = self.words["size"]

    @cached_property
    def data(self) -> np.ndarray:
        """The file in memory: ``(N, size, size, 3)`` uint8 RGB of all frames, or the bytes of all pictures."""
        data = np.asarray(np.memmap(self.root / FRAMES, np.uint8, "r"))
        return data if self.offsets is not None else data.reshape(-1, self.size, self.size, 3)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "data"}  # each process maps by itself

    def sources(self, names: Sequence[str]) -> list["PackedClip | None"]:
        """Return where each clip's frames are, or None for a clip that the store does not hold."""
        numbers = {name: number for number, name in enumerate(self.names)}
        first, frames = self.first.tolist(), self.frames.tolist()
        return [
            None if (number := numbers.get(name)) is None else PackedClip(self, number, first[number], frames[number])
            for name in names
        ]

    def damage(self, what: str) -> DataError:
        """Return the error that says what is wrong with the store and how to make it again."""
        remake = f"rm -r {shlex.quote(str(self.root))} && {pack_command(self.words, self.root)}"
        return DataError(f"The packed store {self.root} {what}. Make it again: {remake}")


@dataclass(frozen=True)
class PackedClip:
    """A clip in a packed store.

    Args:
        store: the store.
        number: of the clip in the store.
        first: number of its first frame in the store.
        count: number of its frames.
    """

    store: Store
    number: int
    first: int
    count: int

    def read(self, choose: Choose, prepare: Prepare = as_decoded) -> list[np.ndarray]:
        """Return the chosen frames as ``(H, W, 3)`` uint8 RGB; of stored pixels views, not to be written to.

        Raises:
            DataError: a damaged picture.
        """
        return read_each_once(choose(self.count), lambda i: prepare(self._frame(i)))

    def _frame(self, i: int) -> np.ndarray:
        store = self.store
        if store.offsets is None:
            return store.data[self.first + i]
        start, end = store.offsets[self.first + i : self.first + i + 2]
        image = decode_image(store.data[start:end].tobytes())
        if image is None:
            raise store.damage(f"holds a damaged picture: frame {i} of clip {store.names[self.number]}")
        return image

    def verify(self) -> None:
        """Compare the clip's bytes with their checksum.

        Raises:
            DataError: they differ.
        """
        store, last = self.store, self.first + self.count
        block = store.data[self.first : last]
        if store.offsets is not None:
            block = store.data[store.offsets[self.first] : store.offsets[last]]
        if zlib.crc32(block) != store.crc32[self.number]:
            raise store.damage(f"is damaged: the frames of clip {store.names[self.number]} do not fit their checksum")
