"""Undecoded images and their labels by row, whatever holds them: Parquet files, a table of `datasets`, or class folders."""

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
    """image: the file's bytes, or None. label: as it is stored (a number, a name or None). where: words that name the row."""

    image: bytes | None
    label: Any
    where: str


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
    """Consecutive rows of a file from row `start` on: Arrow arrays of encoded images and of labels."""

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
        for file, name in enumerate(self.files):
            with _said(name):
                meta = _opened(name).metadata
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
            yield Row(images[row - start].as_py(), labels[row - start].as_py(), self._where(row))

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
        return file_digest(self.files)

    def _where(self, row: int) -> str:
        file = bisect_right(self._file_starts, row) - 1
        return f"row {row - self._file_starts[file]} of {os.path.basename(self.files[file])}"

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
            images = records.column(self.image)
            piece = _Piece(reached, images.field("bytes") if images.type.num_fields else images, records.column(self.label))
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
    """Rows of a `datasets.Dataset`: a memory-mapped copy on disk, quick in any order."""

    def __init__(self, table: Any, image: str, label: str, digest: str) -> None:
        import datasets

        self.table = table.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
        self.image, self.label, self._digest = image, label, digest

    def __len__(self) -> int:
        return len(self.table)

    def at(self, rows: Iterable[int]) -> Iterator[Row]:
        for chunk in _chunks(rows):
            records = self.table[chunk]
            for row, image, label in zip(chunk, records[self.image], records[self.label], strict=True):
                yield Row(_content(image), label, f"row {row}")

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
            yield Row(_read_file(self.files[row]), self.labels[row], str(self.files[row].relative_to(self.root)))

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


def _content(image: dict[str, Any] | None) -> bytes | None:
    """The bytes of an undecoded image, which may stand in a file of their own."""
    if image is None:
        return None
    return image["bytes"] if image["bytes"] is not None else _read_file(Path(image["path"]))


def _read_file(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
