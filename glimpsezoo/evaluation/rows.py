"""Measured rows, one per image: in memory, and as the content of Parquet files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from glimpsezoo.schema import Amount, Count, Positive, Section
from glimpsezoo.untrusted import check_parquet, parsed

_METADATA, _HASH = b"glimpsezoo", b"glimpsezoo.sha256"
_COLUMNS = {  # shape and type of each column of `Rows`
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
    "tie": ("n", np.int8),
}
_LATER = {"tie": -1}  # columns that older files do not have, and what stands for them


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Measurements of n images over T steps; column t - 1 is step t. An image that finished earlier keeps its last values."""

    id: Int[ndarray, "n"]
    """Unique number of the image."""
    group: Int[ndarray, "n"]
    """Its source image."""
    label: Int[ndarray, "n"]
    """Index of the true class."""
    prediction: Int[ndarray, "n T"]
    """Index of the predicted class."""
    confidence: Float[ndarray, "n T"]
    """Probability of the prediction."""
    nll: Float[ndarray, "n T"]
    """Negative log-likelihood, in nats."""
    top5: Bool[ndarray, "n T"]
    """Whether the label is among the five largest logits."""
    macs_by_step: Int[ndarray, "n T"]
    """MACs of a run stopped at that step."""
    regions: Int[ndarray, "n T"]
    """Regions sampled in that step; 0 after the last one."""
    macs: Int[ndarray, "n"]
    """MACs that ran."""
    macs_by_phase: Int[ndarray, "n 5"]
    """The same by phase: start, sense, fuse, locate, classify."""
    exit_step: Int[ndarray, "n"]
    """The last step that ran."""
    tie: Int[ndarray, "n"] = None  # pyright: ignore[reportAssignmentType]
    """1 if rounding may change the prediction of the last step (`glimpsezoo.evaluation.ties`), 0 if not, -1 if that is unknown."""

    def __post_init__(self) -> None:
        if self.tie is None:
            object.__setattr__(self, "tie", np.full(len(self.id), _LATER["tie"]))
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
        """Rows of no images over `steps` steps, with the types of every table."""
        shapes = {"n": (0,), "n T": (0, steps), "n 5": (0, 5)}
        return cls(**{name: np.zeros(shapes[shape], dtype) for name, (shape, dtype) in _COLUMNS.items()})

    @classmethod
    def concatenate(cls, parts: Sequence["Rows"]) -> Self:
        """The rows of all parts (at least one), in order."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS})

    def where(self, mask: Bool[ndarray, "n"]) -> Self:
        """The rows selected by `mask`."""
        return type(self)(**{name: getattr(self, name)[mask] for name in _COLUMNS})

    def at(self, ids: Int[ndarray, "m"]) -> Self:
        """The rows of the images with these ids."""
        return self.where(np.isin(self.id, ids))

    def to_table(self) -> pa.Table:
        """A table with one column per field; values by step or phase are lists of fixed size."""
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
            if name in _LATER and name not in table.column_names:
                columns[name] = np.full(len(table), _LATER[name])
                continue
            column = table[name].combine_chunks()
            by_step = pa.types.is_fixed_size_list(column.type)
            flat = (column.flatten() if by_step else column).to_numpy(zero_copy_only=False)
            columns[name] = flat.reshape(len(table), column.type.list_size) if by_step else flat  # [n, T] or [n]
        return cls(**columns)


def common_ids(rows: Sequence[Rows]) -> Int[ndarray, "n"]:
    """The ids of the images that all of these have."""
    ids = rows[0].id
    for each in rows[1:]:
        ids = np.intersect1d(ids, each.id)
    return ids


class PaperCosts(Section):
    """MACs per image that a paper prints, by its convention, for a run stopped at step 1, 2, ..."""

    convention: str
    """What the paper counts."""
    by_step: tuple[float, ...]
    """One value per step."""


class Measured(Section):
    """How a unit was measured, and what applies to all its images."""

    device: str
    """Name of the device that computed."""
    batch_size: Positive
    """Images per batch."""
    workers: Count
    """Processes that decoded images."""
    seconds: Amount
    """Wall-clock time."""
    uncounted: tuple[str, ...]
    """Operations that are not counted, as in `glimpsezoo.core.macs.Count`."""
    paper_macs: PaperCosts | None
    """None if no paper prints them."""
    skipped: tuple[str, ...] = ()
    """One line for each image that could not be read."""
    conversions: tuple[tuple[str, int], ...] = ()
    """What was done to stored pixels, and to how many images."""
    missing: tuple[str, ...] = ()
    """Operations without a formula that may hold products, as in `glimpsezoo.core.macs.Count`."""


@dataclass(frozen=True)
class StoredUnit:
    """A finished unit, as the store keeps it."""

    rows: Rows
    measured: Measured
    """How the rows were measured."""


def to_parquet(unit: StoredUnit, name: str = "") -> bytes:
    """The content of a Parquet file, with a hash of all values and of the unit's name, so that no damage and no exchange is overlooked."""
    measured = unit.measured.model_dump_json().encode()
    table = unit.rows.to_table().replace_schema_metadata({_METADATA: measured, _HASH: _hash(unit.rows, measured, name)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, **_encodings(table.schema))
    return sink.getvalue().to_pybytes()


def _hash(rows: Rows, measured: bytes, name: str) -> str:
    """A hash of a unit's name, how it was measured, and its rows."""
    whole = hashlib.sha256(f"{name} {len(measured)}\n".encode() + measured)
    for column in _COLUMNS:
        values: ndarray = getattr(rows, column)
        whole.update(f"{column} {list(values.shape)}\n".encode() + values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return whole.hexdigest()


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """Encodings that compress to two thirds of the size: ids as differences, floats split by byte."""
    lists = {field.name: field.type.value_type for field in schema if pa.types.is_fixed_size_list(field.type)}
    columns = {f"{field.name}.list.element" if field.name in lists else field.name: lists.get(field.name, field.type) for field in schema}
    floats = {name: "BYTE_STREAM_SPLIT" for name, kind in columns.items() if pa.types.is_floating(kind)}
    chosen = {"id": "DELTA_BINARY_PACKED", "group": "DELTA_BINARY_PACKED", **floats}
    return {"column_encoding": chosen, "use_dictionary": [name for name in columns if name not in chosen]}


def from_parquet(content: bytes, name: str = "") -> StoredUnit | None:
    """The reverse of `to_parquet`; None for what is damaged or of another unit. Files of results that are older than hashes have none."""
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        check_parquet(file.metadata)
        table = file.read(use_threads=False)  # threads over a buffer may abort the process at its end
        measured = table.schema.metadata[_METADATA]
        unit = StoredUnit(Rows.from_table(table), parsed(Measured, measured))
        expected = table.schema.metadata.get(_HASH)
        known = not name if expected is None else expected.decode() == _hash(unit.rows, measured, name)
        return unit if known else None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):  # whatever is wrong, the unit is measured again
        return None
