"""Read the datasets' own split files strictly: a table, or a `DataError` that names the line."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from dfer_zoo.errors import DataError


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without a byte-order mark.

    Raises:
        DataError: missing, unreadable or not text.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")  # line breaks as they are: a file's name may hold one
    except OSError as error:
        raise DataError(f"The split file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a UTF-8 text file (byte {error.start}). Save it as UTF-8 csv.") from error


def read_csv(path: Path, required: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a csv with a header; rows hold the columns by lower-case name, stripped.

    Commas and semicolons both work as separators, LF and CRLF as line ends, line breaks within quotes are part of a
    cell; empty lines are passed over.

    Raises:
        DataError: a missing column, a row with another number of cells, or no csv at all.
    """
    text = read_text(path)
    header_line = text.splitlines()[0] if text else ""
    delimiter = ";" if ";" in header_line and "," not in header_line else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [column.strip().lower() for column in next(rows, [])]
        missing = [column for column in required if column not in header]
        if missing:
            raise DataError(
                f"{path} lacks the column {missing[0]!r}: its first line is {header_line[:80]!r}. "
                f"Expected a header with: {', '.join(required)}."
            )
        if len(set(header)) < len(header):
            raise DataError(f"{path} names a column twice: {header_line[:80]!r}.")
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise DataError(f"{path}, line {rows.line_num}: {len(row)} cells where the header has {len(header)}.")
            yield rows.line_num, dict(zip(header, (cell.strip() for cell in row), strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: not valid csv ({error}).") from error


def clip_table(rows: list[tuple[str, int]], path: Path) -> pd.DataFrame:
    """Make the table of a split from (name, label) rows.

    Raises:
        DataError: a name that stands twice.
    """
    table = pd.DataFrame(rows, columns=["name", "label"]).astype({"name": object, "label": "int64"})
    repeated = table["name"][table["name"].duplicated()]
    if len(repeated):
        raise DataError(f"{path} lists {len(repeated)} clips more than once, first {repeated.iloc[0]!r}.")
    return table
