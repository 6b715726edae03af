"""Finished units of work on disk: one parquet file each, a row an image, written whole and never done twice.

A unit's id hashes all that decides its outcome. Resuming, several processes and several machines are all "take a unit that nobody
finished": a finished unit is a file of that name, and who measures one holds its lock, which the system lets go when a process dies.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.files import whole, write_whole
from glimpsezoo.records import Section
from glimpsezoo.sources import module_hash

_METADATA = b"glimpsezoo"
_COLUMNS = {  # of `Rows`: shape and type
    "id": ("n", np.int64),
    "group": ("n", np.int64),
    "label": ("n", np.int32),
    "prediction": ("n T", np.int32),
    "confidence": ("n T", np.float32),
    "nll": ("n T", np.float32),
    "top5": ("n T", np.bool_),
    "macs_by_step": ("n T", np.int64),
    "regions": ("n T", np.int32),
    "macs": ("n", np.int64),
    "macs_by_phase": ("n 5", np.int64),
    "exit_step": ("n", np.int32),
}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What was measured of n images over T steps; column t - 1 is step t. An image that finished earlier keeps its last values.

    id, group, label: [n]. prediction, confidence (its probability), nll (nats), top5 (hit): [n, T].
    macs_by_step: [n, T] the cost of a run stopped at that step. regions: [n, T] looked at in that step, 0 after the last one.
    macs: [n] of what ran. macs_by_phase: [n, 5] the same, for start, sense, fuse, locate, classify in this order.
    exit_step: [n] the last look.
    """

    id: Int[ndarray, "n"]
    group: Int[ndarray, "n"]
    label: Int[ndarray, "n"]
    prediction: Int[ndarray, "n T"]
    confidence: Float[ndarray, "n T"]
    nll: Float[ndarray, "n T"]
    top5: Bool[ndarray, "n T"]
    macs_by_step: Int[ndarray, "n T"]
    regions: Int[ndarray, "n T"]
    macs: Int[ndarray, "n"]
    macs_by_phase: Int[ndarray, "n 5"]
    exit_step: Int[ndarray, "n"]

    def __post_init__(self) -> None:
        for name, (_, dtype) in _COLUMNS.items():
            object.__setattr__(self, name, getattr(self, name).astype(dtype, copy=False))

    def __len__(self) -> int:
        return len(self.id)

    @property
    def steps(self) -> int:
        return self.prediction.shape[1]

    @property
    def hits(self) -> Bool[ndarray, "n T"]:
        """Whether the prediction is the label."""
        return self.prediction == self.label[:, None]

    @classmethod
    def empty(cls, steps: int) -> Self:
        """No image, over `steps` steps; its types are those that every table has."""
        shapes = {"n": (0,), "n T": (0, steps), "n 5": (0, 5)}
        return cls(**{name: np.zeros(shapes[shape], dtype) for name, (shape, dtype) in _COLUMNS.items()})

    @classmethod
    def concatenate(cls, parts: Sequence["Rows"]) -> Self:
        """The rows of all parts (at least one), in order."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS})

    def where(self, mask: Bool[ndarray, "n"]) -> Self:
        """The rows of the images of `mask`."""
        return type(self)(**{name: getattr(self, name)[mask] for name in _COLUMNS})

    def to_table(self) -> pa.Table:
        """A table with a column a field; values by step or phase are lists of fixed size."""
        columns = {}
        for name in _COLUMNS:
            values: ndarray = getattr(self, name)
            flat = pa.array(values.reshape(-1))
            columns[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """The reverse of `to_table`. Raises KeyError or ValueError for a table of another layout."""
        columns = {}
        for name in _COLUMNS:
            column = table[name].combine_chunks()
            by_step = pa.types.is_fixed_size_list(column.type)
            flat = (column.flatten() if by_step else column).to_numpy(zero_copy_only=False)
            columns[name] = flat.reshape(len(table), column.type.list_size) if by_step else flat  # [n, T] or [n]
        return cls(**columns)


class PaperCosts(Section):
    """A paper's convention and the MACs of an image that it prints for a run stopped at step 1, 2, ..."""

    convention: str
    by_step: tuple[float, ...]


class Measured(Section):
    """Who measured a unit, and what belongs to all its images.

    skipped: one line for each image that could not be read. uncounted, missing: operations, as in `glimpsezoo.cost.Count`. conversions:
    what was done to stored pixels -> of how many images.
    """

    device: str
    batch_size: int
    workers: int
    seconds: float
    uncounted: tuple[str, ...]
    paper_macs: PaperCosts | None
    skipped: tuple[str, ...] = ()
    conversions: tuple[tuple[str, int], ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """A finished unit."""

    rows: Rows
    measured: Measured


class UnitStore:
    """A folder of finished units; made when the first one is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, unit_id: str) -> Path:
        return self.folder / f"{unit_id}.parquet"

    def has(self, unit_id: str) -> bool:
        """Whether a file of that unit is there; `read` tells whether it can be used."""
        return self.path(unit_id).is_file()

    def read(self, unit_id: str) -> Unit | None:
        """The finished unit; None if nobody finished it, or if its file is damaged."""
        return read_rows(self.path(unit_id))

    def write(self, unit_id: str, unit: Unit) -> None:
        """Write a finished unit whole. Raises `GlimpseZooError` if the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_rows(self.path(unit_id), unit)
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def read_finding(self, name: str) -> str | None:
        """A finding that is no table of rows: the text that was written under this name; None if there is none, or no text."""
        try:
            return (self.folder / f"{name}.json").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None

    def write_finding(self, name: str, text: str) -> None:
        """Write such a finding whole. Raises `GlimpseZooError` if the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / f"{name}.json", text.encode())
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    @contextmanager
    def claim(self, unit_id: str) -> Iterator[bool]:
        """Whether this process may measure the unit now: false while another one does."""
        path = self.folder / "locks" / unit_id
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise _unwritable(self.folder, error) from None
        try:
            yield True
        finally:
            lock.release()


def _unwritable(folder: Path, error: OSError) -> GlimpseZooError:
    return GlimpseZooError(f"expected a folder for finished units that can be written, got {str(folder)!r}: {one_line(error)}")


def write_rows(path: Path, unit: Unit) -> None:
    """Write rows and who measured them to a parquet file, atomically: readers see all of it or nothing."""
    table = unit.rows.to_table().replace_schema_metadata({_METADATA: unit.measured.model_dump_json()})
    with whole(path) as part:
        pq.write_table(table, part, compression="zstd", write_page_checksum=True, **_encodings(table.schema))


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """How columns are laid out for the compressor: ids as differences, floats with like bytes side by side. Two thirds of the size."""
    lists = {field.name: field.type.value_type for field in schema if pa.types.is_fixed_size_list(field.type)}
    columns = {f"{field.name}.list.element" if field.name in lists else field.name: lists.get(field.name, field.type) for field in schema}
    floats = {name: "BYTE_STREAM_SPLIT" for name, kind in columns.items() if pa.types.is_floating(kind)}
    chosen = {"id": "DELTA_BINARY_PACKED", "group": "DELTA_BINARY_PACKED", **floats}
    return {"column_encoding": chosen, "use_dictionary": [name for name in columns if name not in chosen]}


def read_rows(path: Path) -> Unit | None:
    """What `write_rows` wrote; None if the file is missing, cut, damaged or of another layout."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        measured = Measured.model_validate_json(table.schema.metadata[_METADATA])
        return Unit(Rows.from_table(table), measured)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):  # whatever is wrong with it, it is measured again
        return None


def unit_id(identity: Mapping[str, Any], start: int, stop: int) -> str:
    """The name of a unit: a hash (32 hex digits) of `identity` (JSON values) and of its images start..stop-1."""
    text = json.dumps({**identity, "images": [start, stop]}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """Hash (64 hex digits) of named tensors: names, types, shapes and values, wherever they lie."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # `contiguous` lets one element keep a stride of 0
        whole.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def source_hash(kind: type) -> str:
    """Hash (64 hex digits) of the source of the package that a class comes from.

    Raises `GlimpseZooError` for a class without a source file (typed into an interpreter): nobody could tell later what was measured.
    """
    for name in (kind.__module__.partition(".")[0], kind.__module__):
        if found := module_hash(name):
            return found
    raise GlimpseZooError(f"expected a class from a source file, got {kind.__name__} without one: measure it without a store")
