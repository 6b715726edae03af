"""Undecoded images and their labels by row, whatever holds them: Parquet files, a table of `datasets`, or class folders."""

import json
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from glimpsezoo.data.fingerprint import file_digest
from glimpsezoo.errors import GlimpseZooError, one_line

RECORDS = 128  # rows that are read from a Parquet file at once
WINDOW = 32  # such pieces that a stream is shuffled in, when it is trained on


class Row(NamedTuple):
    """image: the file's bytes, or None. label: as it is stored (a number, a name or None). where: words that name the row.

    missing: why there are no bytes, where the row itself does not say it.
    """

    image: bytes | None
    label: Any
    where: str
    missing: str = ""


class Rows(ABC):
    """A table of images in a fixed order."""

    @abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def at(self, rows: Iterable[int]) -> Iterator[Row]:
        """These rows, in this order; quickest where they ascend."""

    @abstractmethod
    def label_column(self) -> Any:
        """All labels as they are stored, in an Arrow array. Reads no image."""

    @abstractmethod
    def digest(self) -> str:
        """Hash of the content."""


class _Piece(NamedTuple):
    """Consecutive rows of a file from row `start` on: Arrow arrays of images and labels as they are stored."""

    start: int
    images: Any
    labels: Any


class ParquetRows(Rows):
    """Rows of Parquet files, read piece by piece, so that memory does not grow with their number.

    files: paths, or addresses that fsspec opens (`hf://...`): those are read in ranges, and nothing is kept.
    shuffled: whether rows will be read in the order of `windows`, which keeps a window in memory.
    """

    def __init__(self, files: Sequence[str], image: str, label: str, *, shuffled: bool = False) -> None:
        self.files, self.image, self.label = tuple(files), image, label
        self.kept = WINDOW + 1 if shuffled else 2
        self._groups: list[tuple[int, int]] = []  # every row group: its file, and its number there
        self._starts = [0]  # the first row of each group, and the end
        self._file_starts: list[int] = []
        first: Any = None
        for file, name in enumerate(self.files):
            with _said(name):
                opened = _opened(name)
                meta, kinds = opened.metadata, _kinds(opened.schema_arrow, image, label)
            first = first or kinds
            if kinds != first:
                raise GlimpseZooError(
                    f"expected the columns {image!r} and {label!r} of {os.path.basename(self.files[0])} in {os.path.basename(name)}, too, "
                    "got columns of other types or other class names: read the files apart from each other"
                )
            self._file_starts.append(self._starts[-1])
            for group in range(meta.num_row_groups):
                self._groups.append((file, group))
                self._starts.append(self._starts[-1] + meta.row_group(group).num_rows)
        self._forget()

    def __len__(self) -> int:
        return self._starts[-1]

    def at(self, rows: Iterable[int]) -> Iterator[Row]:
        for row in rows:
            start, images, labels = self._piece_with(row)
            yield self.row(row, images[row - start].as_py(), labels[row - start].as_py())

    def row(self, row: int, image: Any, label: Any) -> Row:
        """A row from its cells: the one reader of stored images. A path is relative to the folder of the row's file."""
        file = bisect_right(self._file_starts, row) - 1
        folder, name = os.path.split(self.files[file])
        return _row(image, label, f"row {row - self._file_starts[file]} of {name}", folder)

    def windows(self) -> list[range]:
        """The rows in spans that can be read in any order within, one span after the other."""
        edges = [row for start, stop in pairwise(self._starts) for row in range(start, stop, RECORDS)]
        edges = [*edges[::WINDOW], len(self)]
        return [range(start, stop) for start, stop in pairwise(edges)]

    def label_column(self) -> Any:
        import pyarrow as pa

        columns = []
        for file in self.files:
            with _said(file):
                columns.append(_opened(file).read(columns=[self.label])[self.label])
        return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)

    def digest(self) -> str:
        content = file_digest(self.files)
        beside = self._beside()
        return f"{content}/{file_digest(beside)}" if beside else content

    def _beside(self) -> list[str]:
        """The files of images that the Parquet files only name."""
        found = []
        for file in self.files:
            with _said(file):
                opened = _opened(file)
                groups = [group for group in range(opened.metadata.num_row_groups) if _may_name_files(opened, group, self.image)]
                for records in opened.iter_batches(RECORDS, row_groups=groups, columns=[self.image]) if groups else ():
                    cells = [cell for cell in records.column(0).to_pylist() if cell and cell["bytes"] is None and cell.get("path")]
                    found += [_joined(os.path.dirname(file), cell["path"]) for cell in cells]
        return found

    def _piece_with(self, row: int) -> _Piece:
        """The piece that holds `row`."""
        if os.getpid() != self._process:  # a forked worker: an open file's position is shared with its parent
            self._forget()
        for piece in self._pieces:
            if piece.start <= row < piece.start + len(piece.labels):
                return piece
        group = bisect_right(self._starts, row) - 1
        reached, reader = self._readers.pop(group, (row + 1, None))
        if reader is None or reached > row:
            reached, reader = self._starts[group], self._read(group)
        while True:
            with _said(self.files[self._groups[group][0]]):
                records = next(reader)
            piece = _Piece(reached, records.column(self.image), records.column(self.label))
            reached += len(records)
            self._pieces.append(piece)
            if row < reached:
                self._readers[group] = (reached, reader)
                while len(self._readers) > self.kept:
                    self._readers.pop(next(iter(self._readers)))
                return piece

    def _read(self, group: int) -> Iterator[Any]:
        file, number = self._groups[group]
        if file not in self._open:
            self._open = {file: _opened(self.files[file])}
        return self._open[file].iter_batches(RECORDS, row_groups=[number], columns=[self.image, self.label], use_threads=False)

    def _forget(self) -> None:
        """Close what is open, and drop what was read."""
        self._process = os.getpid()
        self._open: dict[int, Any] = {}
        self._readers: dict[int, tuple[int, Any]] = {}  # group -> how far it was read, and its reader
        self._pieces: deque[_Piece] = deque(maxlen=self.kept)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}, "_readers": {}, "_pieces": deque(maxlen=self.kept)}


class TableRows(Rows):
    """Rows of a `datasets.Dataset`: a memory-mapped copy on disk, quick in any order.

    source: the Parquet files that it is a copy of, in the same order, which then read its cells; None if it is one of other files.
    """

    def __init__(self, table: Any, columns: tuple[str, str], digest: str, source: ParquetRows | None = None) -> None:
        import datasets

        self.image, self.label = columns
        self._digest, self.source = digest, source
        kind = table.features[self.image]
        table = table.select_columns([self.image, self.label])
        self.table = table.cast_column(self.image, datasets.Image(decode=False)) if isinstance(kind, datasets.Image) else table

    def __len__(self) -> int:
        return len(self.table)

    def at(self, rows: Iterable[int]) -> Iterator[Row]:
        for chunk in _chunks(rows):
            records = self.table[chunk]
            for row, image, label in zip(chunk, records[self.image], records[self.label], strict=True):
                yield self.source.row(row, image, label) if self.source else _row(image, label, f"row {row}", "")

    def label_column(self) -> Any:
        return self.table.data.column(self.label)

    def digest(self) -> str:
        return self._digest


class FolderRows(Rows):
    """Image files, each with a label. root: what their names are shortened by."""

    def __init__(self, root: Path, files: Sequence[Path], labels: Sequence[int]) -> None:
        self.root, self.files, self.labels = root, tuple(files), tuple(labels)

    def __len__(self) -> int:
        return len(self.files)

    def at(self, rows: Iterable[int]) -> Iterator[Row]:
        for row in rows:
            content, missing = _read_file(str(self.files[row]))
            yield Row(content, self.labels[row], str(self.files[row].relative_to(self.root)), missing)

    def label_column(self) -> Any:
        import pyarrow as pa

        return pa.array(self.labels, pa.int64())

    def digest(self) -> str:
        return file_digest([str(file) for file in self.files], self.root)


@contextmanager
def _said(file: str) -> Iterator[None]:
    """What goes wrong with a file, as one line that names it. Raises `GlimpseZooError`."""
    try:
        yield
    except Exception as error:  # Arrow's, the operating system's or, of a stream, the network's
        name = os.path.basename(file)
        raise GlimpseZooError(
            f"expected a whole Parquet file, got {name}, which cannot be read ({one_line(error)}): fetch it again"
        ) from error


def _chunks(rows: Iterable[int]) -> Iterator[list[int]]:
    source = iter(rows)
    return iter(lambda: list(islice(source, RECORDS)), [])


def _opened(file: str) -> Any:
    """A Parquet file, local or remote."""
    import pyarrow.parquet as pq

    if "://" not in file:
        return pq.ParquetFile(file, buffer_size=1 << 20)
    from fsspec.core import url_to_fs

    system, path = url_to_fs(file)
    # Ranges of a remote file are fetched a column of a row group at a time.
    return pq.ParquetFile(system.open(path, "rb"), pre_buffer=True)


def stored_schema(file: str) -> Any:
    """The columns of a Parquet file, as an Arrow schema. Raises `GlimpseZooError`."""
    with _said(file):
        return _opened(file).schema_arrow


def _kinds(schema: Any, image: str, label: str) -> list[str]:
    """What all files of a split must share: the types of both columns, and the classes that a file names."""
    types = [str(schema.field(name).type) if name in schema.names else "" for name in (image, label)]
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return [*types, json.dumps(told.get("info", {}).get("features", {}).get(label), sort_keys=True)]


def _may_name_files(opened: Any, group: int, image: str) -> bool:
    """Whether an image in a row group may have a path in place of bytes, as far as the file's statistics tell."""
    meta = opened.metadata.row_group(group)
    columns = [meta.column(place) for place in range(meta.num_columns)]
    bytes_of = [column for column in columns if column.path_in_schema == f"{image}.bytes"]
    if not bytes_of:  # a plain column of bytes
        return False
    statistics = bytes_of[0].statistics
    return statistics is None or not statistics.has_null_count or statistics.null_count > 0


def _row(image: Any, label: Any, where: str, folder: str) -> Row:
    """A row from its cells: an image is bytes, or a record of them or of the path of its own file."""
    if not isinstance(image, dict):
        return Row(image, label, where)
    if image["bytes"] is not None or not image.get("path"):
        return Row(image["bytes"], label, where)
    content, missing = _read_file(_joined(folder, image["path"]))
    return Row(content, label, where, missing)


def _joined(folder: str, path: str) -> str:
    """A path as it is stored, or below the folder of the file that names it."""
    if os.path.isabs(path) or "://" in path:
        return path
    return f"{folder}/{path}" if "://" in folder else os.path.join(folder, path)


def _read_file(path: str) -> tuple[bytes | None, str]:
    """The content of a file, or why there is none. An address is read only where the data are remote, too."""
    try:
        if not path.startswith("hf://"):
            return Path(path).read_bytes(), ""
        import fsspec

        with fsspec.open(path, "rb") as stream:
            return stream.read(), ""  # pyright: ignore[reportAttributeAccessIssue]
    except Exception as error:  # the operating system's, or the network's
        return None, f" that can be read at {os.path.basename(path)!r} ({_reason(error)})"


def _reason(error: Exception) -> str:
    """What went wrong, without the path: that is the user's own."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else type(error).__name__
