"""Encoded images and their labels by row number, from Parquet files, a table of `datasets`, or class folders."""

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

from glimpsezoo.data.digests import Watched
from glimpsezoo.data.fingerprint import file_digest
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.untrusted import IMAGE_SIZE, check_parquet, json_values, read_regular
from glimpsezoo.waiting import UnansweredError, bound

RECORDS = 128  # rows per read of a Parquet file: a piece
WINDOW = 32  # pieces per window; training shuffles a stream within windows


class EncodedImage(NamedTuple):
    """A row: an encoded image and its label."""

    image: bytes | None
    """The content of the image file; None if it is missing."""
    label: Any
    """The label as it is stored: a number, a name or None."""
    where: str
    """What error messages call the row."""
    missing: str = ""
    """Why the image is missing, if its file could not be read."""


class EncodedImages(ABC):
    """Encoded images in a fixed order, numbered from 0."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def at(self, numbers: Iterable[int]) -> Iterator[EncodedImage]:
        """The images of these numbers, in this order; ascending numbers are read fastest."""

    @abstractmethod
    def label_column(self) -> Any:
        """All labels as they are stored, in an Arrow array. Reads no image."""

    @abstractmethod
    def digest(self) -> str:
        """Hash of the content."""


class _Piece(NamedTuple):
    """Consecutive rows of a file."""

    start: int
    """The number of its first row."""
    images: Any
    """Arrow array of the images as they are stored."""
    labels: Any
    """Arrow array of the labels as they are stored."""


class ParquetImages(EncodedImages):
    """The rows of Parquet files. They are read piece by piece, so memory does not grow with their number.

    files: paths, or addresses that fsspec opens (`hf://...`), which are read in ranges without keeping a copy.
    shuffled: whether rows will be read in the order of `windows`; then a whole window stays in memory.
    """

    def __init__(self, files: Sequence[str], image: str, label: str, *, shuffled: bool = False) -> None:
        self.files, self.image, self.label = tuple(files), image, label
        self.kept = WINDOW + 1 if shuffled else 2
        self.watched = Watched(self.files)
        self._groups: list[tuple[int, int]] = []  # for every row group: the number of its file, and its own number in that file
        self._starts = [0]  # the first row of each group, then the total
        self._file_starts: list[int] = []
        first: Any = None
        for file, name in enumerate(self.files):
            with _naming(name):
                opened = _open_parquet(name)
                check_parquet(opened.metadata)
                meta, kinds = opened.metadata, _kinds(opened.schema_arrow, image, label)
            first = first or kinds
            if kinds != first:
                raise GlimpseZooError(
                    f"expected the columns {image!r} and {label!r} of {os.path.basename(self.files[0])} in {os.path.basename(name)}, too, "
                    "got columns of other types or other class names: read the files separately"
                )
            self._file_starts.append(self._starts[-1])
            for group in range(meta.num_row_groups):
                self._groups.append((file, group))
                self._starts.append(self._starts[-1] + meta.row_group(group).num_rows)
        self._forget()

    def __len__(self) -> int:
        return self._starts[-1]

    def at(self, numbers: Iterable[int]) -> Iterator[EncodedImage]:
        for row in numbers:
            start, images, labels = self._piece_with(row)
            yield self.row(row, images[row - start].as_py(), labels[row - start].as_py())

    def row(self, row: int, image: Any, label: Any) -> EncodedImage:
        """Row number `row` from its two cells. A path in a cell is relative to the folder of the row's file."""
        file = bisect_right(self._file_starts, row) - 1
        folder, name = os.path.split(self.files[file])
        return _from_cells(image, label, f"row {row - self._file_starts[file]} of {name}", folder)

    def windows(self) -> list[range]:
        """Consecutive spans that cover all rows. Within a span, any reading order is fast."""
        edges = [row for start, stop in pairwise(self._starts) for row in range(start, stop, RECORDS)]
        edges = [*edges[::WINDOW], len(self)]
        return [range(start, stop) for start, stop in pairwise(edges)]

    def label_column(self) -> Any:
        import pyarrow as pa

        columns = []
        for file in self.files:
            with _naming(file):
                columns.append(_open_parquet(file, ahead=False).read(columns=[self.label])[self.label])
        return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)

    def digest(self) -> str:
        content = file_digest(self.files)
        beside = self._beside()
        return f"{content}/{file_digest(beside)}" if beside else content

    def _beside(self) -> list[str]:
        """The image files to which the Parquet files refer by path."""
        found = []
        for file in self.files:
            with _naming(file):
                opened = _open_parquet(file)
                groups = [group for group in range(opened.metadata.num_row_groups) if _may_name_files(opened, group, self.image)]
                for records in opened.iter_batches(RECORDS, row_groups=groups, columns=[self.image]) if groups else ():
                    cells = [cell for cell in records.column(0).to_pylist() if cell and cell["bytes"] is None and cell.get("path")]
                    paths = (_joined(os.path.dirname(file), cell["path"]) for cell in cells)
                    found += [path for path in paths if _is_readable(path)]
        return found

    def _piece_with(self, row: int) -> _Piece:
        """The piece that contains `row`."""
        if os.getpid() != self._process:  # a forked worker shares the position of an open file with its parent
            self._forget()
        for piece in self._pieces:
            if piece.start <= row < piece.start + len(piece.labels):
                return piece
        group = bisect_right(self._starts, row) - 1
        reached, reader = self._readers.pop(group, (row + 1, None))
        while True:
            with self._reading(self._groups[group][0]):
                if reader is None or reached > row:
                    reached, reader = self._starts[group], self._read(group)
                records = next(reader)
            piece = _Piece(reached, records.column(self.image), records.column(self.label))
            reached += len(records)
            self._pieces.append(piece)
            if row < reached:
                self._readers[group] = (reached, reader)
                while len(self._readers) > self.kept:
                    self._readers.pop(next(iter(self._readers)))
                return piece

    @contextmanager
    def _reading(self, file: int) -> Iterator[None]:
        """Check after reading that a file is still the one that was opened."""
        try:
            with _naming(self.files[file]):
                yield
        finally:
            self.watched.check(file, self.files[file])

    def _read(self, group: int) -> Iterator[Any]:
        file, number = self._groups[group]
        if file not in self._open:
            self._open = {file: _open_parquet(self.files[file])}
        return self._open[file].iter_batches(RECORDS, row_groups=[number], columns=[self.image, self.label], use_threads=False)

    def _forget(self) -> None:
        """Close all files and drop all pieces."""
        self._process = os.getpid()
        self._open: dict[int, Any] = {}
        self._readers: dict[int, tuple[int, Any]] = {}  # group -> the next row to read, and its reader
        self._pieces: deque[_Piece] = deque(maxlen=self.kept)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}, "_readers": {}, "_pieces": deque(maxlen=self.kept)}


class TableImages(EncodedImages):
    """The rows of a `datasets.Dataset`, a memory-mapped copy on disk that is fast in any order.

    source: the Parquet files of which it is a copy in the same order, so that errors can name their rows; None for other files.
    """

    def __init__(self, table: Any, columns: tuple[str, str], digest: str, source: ParquetImages | None = None) -> None:
        import datasets

        self.image, self.label = columns
        self._digest, self.source = digest, source
        kind = table.features[self.image]
        table = table.select_columns([self.image, self.label])
        self.table = table.cast_column(self.image, datasets.Image(decode=False)) if isinstance(kind, datasets.Image) else table

    def __len__(self) -> int:
        return len(self.table)

    def at(self, numbers: Iterable[int]) -> Iterator[EncodedImage]:
        for chunk in _chunks(numbers):
            records = self.table[chunk]
            for row, image, label in zip(chunk, records[self.image], records[self.label], strict=True):
                yield self.source.row(row, image, label) if self.source else _from_cells(image, label, f"row {row}", "")

    def label_column(self) -> Any:
        return self.table.data.column(self.label)

    def digest(self) -> str:
        return self._digest


class FolderImages(EncodedImages):
    """Image files with their labels. root: error messages name the files relative to it."""

    def __init__(self, root: Path, files: Sequence[Path], labels: Sequence[int]) -> None:
        self.root, self.files, self.labels = root, tuple(files), tuple(labels)
        self.watched: Watched | None = None

    def __len__(self) -> int:
        return len(self.files)

    def at(self, numbers: Iterable[int]) -> Iterator[EncodedImage]:
        for number in numbers:
            content, missing = _read_file(str(self.files[number]))
            if self.watched:
                self.watched.check(number, str(self.files[number]))
            yield EncodedImage(content, self.labels[number], str(self.files[number].relative_to(self.root)), missing)

    def label_column(self) -> Any:
        import pyarrow as pa

        return pa.array(self.labels, pa.int64())

    def digest(self) -> str:
        files = [str(file) for file in self.files]
        self.watched = Watched(files)  # from now on, what is read must be what is hashed
        return file_digest(files, self.root)


@contextmanager
def _naming(file: str) -> Iterator[None]:
    """Turn any error into a `GlimpseZooError`, one line that names the file."""
    try:
        yield
    except UnansweredError:
        raise
    except Exception as error:  # from Arrow, the operating system or, for a stream, the network
        name = os.path.basename(file)
        raise GlimpseZooError(
            f"expected a whole Parquet file, got {name}, which cannot be read ({one_line(error)}): fetch it again"
        ) from error


def _chunks(numbers: Iterable[int]) -> Iterator[list[int]]:
    source = iter(numbers)
    return iter(lambda: list(islice(source, RECORDS)), [])


def _open_parquet(file: str, *, ahead: bool = True) -> Any:
    """Open a Parquet file, local or remote. ahead: whether to fetch more of a remote one than is asked for, which helps in sequence."""
    import pyarrow.parquet as pq

    if "://" not in file:
        return pq.ParquetFile(file, buffer_size=1 << 20)
    from fsspec.core import url_to_fs

    bound()  # in a decoding worker, too
    system, path = url_to_fs(file)
    # pre_buffer: fetch a remote file in one range per column of a row group
    return pq.ParquetFile(system.open(path, "rb", **({} if ahead else {"cache_type": "none"})), pre_buffer=True)


def stored_schema(file: str) -> Any:
    """The Arrow schema of a Parquet file. Raises `GlimpseZooError`."""
    with _naming(file):
        return _open_parquet(file).schema_arrow


def _kinds(schema: Any, image: str, label: str) -> list[str]:
    """What all files of a split must have in common: the types of both columns, and the class names if a file has them."""
    types = [str(schema.field(name).type) if name in schema.names else "" for name in (image, label)]
    told = json_values((schema.metadata or {}).get(b"huggingface", b"{}"))
    return [*types, json.dumps(told.get("info", {}).get("features", {}).get(label), sort_keys=True)]


def _may_name_files(opened: Any, group: int, image: str) -> bool:
    """Whether the file's statistics allow an image in a row group to be stored as a path instead of bytes."""
    meta = opened.metadata.row_group(group)
    columns = [meta.column(place) for place in range(meta.num_columns)]
    bytes_of = [column for column in columns if column.path_in_schema == f"{image}.bytes"]
    if not bytes_of:  # a plain column of bytes
        return False
    statistics = bytes_of[0].statistics
    return statistics is None or not statistics.has_null_count or statistics.null_count > 0


def _from_cells(image: Any, label: Any, where: str, folder: str) -> EncodedImage:
    """A row from its cells. The cell of an image holds bytes, or a record of its bytes or of the path of its file."""
    if not isinstance(image, dict):
        return EncodedImage(image, label, where)
    if image["bytes"] is not None or not image.get("path"):
        return EncodedImage(image["bytes"], label, where)
    content, missing = _read_file(_joined(folder, image["path"]))
    return EncodedImage(content, label, where, missing)


def _joined(folder: str, path: str) -> str:
    """A stored path; a relative one is relative to the folder of the file that contains it. A file of the Hub cannot name local ones."""
    if "://" in path:
        return path
    return f"{folder}/{path}" if "://" in folder else os.path.join(folder, path)


def _is_readable(path: str) -> bool:
    """Whether a stored path is read: only addresses on the Hub are read over the network."""
    return "://" not in path or path.startswith("hf://")


def _read_file(path: str) -> tuple[bytes | None, str]:
    """The content of a file, or None and why it cannot be read."""
    try:
        if not _is_readable(path):
            return None, f" on this machine or on the Hub, got {os.path.basename(path)!r} at another address"
        if not path.startswith("hf://"):
            return read_regular(path, IMAGE_SIZE), ""
        import fsspec

        bound()
        with fsspec.open(path, "rb") as stream:
            return stream.read(), ""  # pyright: ignore[reportAttributeAccessIssue]
    except UnansweredError:  # which says nothing about the image
        raise
    except Exception as error:  # from the operating system or the network
        return None, f" that can be read at {os.path.basename(path)!r} ({_reason(error)})"


def _reason(error: Exception) -> str:
    """What went wrong, without the path, which is private to the user."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else type(error).__name__
