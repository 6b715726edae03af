"""From labels as they are stored, numbers or names of any type, to class numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glimpsezoo.data.base import BadImageError
from glimpsezoo.data.rows import Row, Rows
from glimpsezoo.errors import GlimpseZooError

PLAUSIBLE = 1000  # classes from which numbers are expected to be used, most of them


@dataclass(frozen=True)
class Labels:
    """How stored labels become numbers. count: how many classes. names: the number of each stored value, where it is not that number."""

    count: int
    names: Mapping[Any, int] = field(default_factory=dict)

    def of(self, stored: Any) -> int:
        """The label; -1 if it is missing (the Hub's convention too), or any other number outside 0..count-1 if it is wrong."""
        value = plain(stored)
        if value is None or value == -1:
            return -1
        if self.names:
            return self.names.get(value, self.count) if isinstance(value, str | int) else self.count
        return value if isinstance(value, int) else self.count

    def numbers_of(self, rows: Rows) -> np.ndarray:
        """All labels of a source [n]; a missing or wrong one as `of` has it."""
        import pyarrow as pa

        column = rows.label_column()
        if pa.types.is_integer(column.type) and column.type != pa.uint64() and not self.names:
            return np.asarray(column.cast(pa.int64()).fill_null(-1), dtype=np.int64)
        return np.array([self.of(stored) for stored in column.to_pylist()], dtype=np.int64)

    def checked(self, row: Row) -> int:
        """The row's label. Raises `BadImageError` if it is missing or out of range."""
        label = self.of(row.label)
        if 0 <= label < self.count:
            return label
        wrong = "a missing label" if label == -1 else f"{row.label!r}"
        raise BadImageError(f"{row.where}: expected a label in 0..{self.count - 1}, got {wrong}")


def plain(stored: Any) -> Any:
    """A label without what adds nothing to it: the item of a list of one, the whole number of a float; None for NaN and an empty list.

    >>> [plain(stored) for stored in (3, True, 2.0, [1], [], "cat", 0.5, [1, 2])]
    [3, 1, 2, 1, None, 'cat', 0.5, [1, 2]]
    """
    if isinstance(stored, list):
        return plain(stored[0]) if len(stored) == 1 else stored or None
    if isinstance(stored, float):
        return int(stored) if stored.is_integer() else None if stored != stored else stored
    return int(stored) if isinstance(stored, bool) else stored


@dataclass(frozen=True)
class LabelColumn:
    """The labels of one split of a source. names: of the classes, in the order of their numbers, where the source tells them.

    boolean, listed: whether they are stored as truth values, and in lists. rows: opens the split, where its labels must be read.
    """

    split: str
    column: str
    names: tuple[str, ...]
    boolean: bool
    listed: bool
    rows: Callable[[], Rows]

    def values(self) -> set[Any]:
        """The different labels that occur, less the missing ones. Raises `GlimpseZooError` for what is no label of one class."""
        column = self.rows().label_column()
        stored = column.to_pylist() if self.listed else column.unique().to_pylist()
        found = {tuple(value) if isinstance(value, list) else value for value in map(plain, stored)} - {None, -1}
        wrong = next((value for value in found if not isinstance(value, str | int)), None)
        if wrong is None:
            return found
        what = f"a list of {len(wrong)}" if isinstance(wrong, tuple) else repr(wrong)
        raise GlimpseZooError(
            f"expected one class a row in the column {self.column!r} of {self.split}, got {what}: "
            "name another column by --set data.label=COLUMN"
        )


def classes_of(columns: Sequence[LabelColumn]) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """The classes of all splits together, and how each split's labels become their numbers. The first column's order of classes counts.

    Raises `GlimpseZooError` where the splits do not tell the same classes apart.
    """
    if any(column.names for column in columns):
        return _named(columns)
    occurring = [column.values() for column in columns]
    values = set().union(*occurring)
    if len({isinstance(value, str) for value in values}) > 1:
        raise GlimpseZooError(
            f"expected labels of one kind in the column {columns[0].column!r}, got names and numbers: "
            "name another column by --set data.label=COLUMN"
        )
    if all(isinstance(value, int) for value in values):
        classes = ("False", "True") if all(column.boolean for column in columns) else _numbered(values, columns[0].column)
        return classes, {column.split: Labels(len(classes)) for column in columns}
    classes = tuple(sorted(values))
    labels = Labels(len(classes), {name: number for number, name in enumerate(classes)})
    return classes, {column.split: labels for column in columns}


def _numbered(values: Iterable[int], column: str) -> tuple[str, ...]:
    """Classes that are numbers: 0 to the largest. Raises `GlimpseZooError` for numbers that are hardly those of classes."""
    different, largest = set(values), max(values, default=-1)
    if largest >= PLAUSIBLE and largest >= 10 * len(different):
        raise GlimpseZooError(
            f"expected class numbers from 0 in the column {column!r}, got {len(different)} different ones up to {largest}: "
            "name another column by --set data.label=COLUMN, or store the classes as text"
        )
    return tuple(map(str, range(largest + 1)))


def _named(columns: Sequence[LabelColumn]) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """Classes that the source names: numbers and names of every split mean the same class by its name."""
    classes = next(column.names for column in columns if column.names)
    place = {name: number for number, name in enumerate(classes)}
    found = {}
    for column in columns:
        names = column.names or tuple(sorted(map(str, column.values())))
        unknown = [name for name in names if name not in place]
        if unknown:
            other = next(each.split for each in columns if each.names)
            raise GlimpseZooError(
                f"expected the classes of {other} in {column.split}, got {unknown[0]!r}, which {other} does not name: "
                "make the names of both agree, or name other splits by --set data.train=NAME and data.test=NAME"
            )
        if not column.names:
            found[column.split] = Labels(len(classes), dict(place))
        elif names == classes:
            found[column.split] = Labels(len(classes))
        else:
            found[column.split] = Labels(len(classes), {stored: place[name] for stored, name in enumerate(names)})
        if column.names and column.listed:
            column.values()  # which refuses a row of several classes
    return classes, found


def labels_by(names: tuple[str, ...], classes: tuple[str, ...], where: str) -> Labels:
    """The labels of a set whose classes the catalogue knows, from a copy that may name them itself, in another order perhaps.

    Names that are none of the catalogue's are another wording of the same classes. Raises `GlimpseZooError` where only some are.
    """
    known = set(names) & set(classes)
    if not known or names[: len(classes)] == classes:
        return Labels(len(classes))
    if len(known) < len(classes):
        missing = next(name for name in classes if name not in known)
        raise GlimpseZooError(f"expected the class {missing!r} among those that the files of {where} name, got none: fetch its files again")
    place = {name: number for number, name in enumerate(classes)}
    return Labels(len(classes), {stored: place[name] for stored, name in enumerate(names) if name in place})


def content_of(rows: Rows, labels: Labels) -> str:
    """Hash of a source's content, and of what its labels mean where they are not the numbers of the classes."""
    return f"{rows.digest()}/{sorted(labels.names.items(), key=str)}" if labels.names else rows.digest()
