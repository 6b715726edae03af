"""From stored labels (numbers or names of any type) to class numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glimpsezoo.data.base import BadImageError
from glimpsezoo.data.encoded import EncodedImage, EncodedImages
from glimpsezoo.errors import GlimpseZooError

PLAUSIBLE = 1000  # from this largest number on, labels are class numbers only if a tenth of the numbers occur


@dataclass(frozen=True)
class Labels:
    """How stored labels become class numbers."""

    count: int
    """The number of classes."""
    names: Mapping[Any, int] = field(default_factory=dict)
    """Stored value -> class number; empty if the stored values are the class numbers."""

    def of(self, stored: Any) -> int:
        """The class number; -1 if the label is missing (the Hub's convention, too), another number outside 0..count-1 if it is wrong."""
        value = plain(stored)
        if value is None or value == -1:
            return -1
        if self.names:
            return self.names.get(value, self.count) if isinstance(value, str | int) else self.count
        return value if isinstance(value, int) else self.count

    def numbers_of(self, images: EncodedImages) -> np.ndarray:
        """The class numbers of all images [n], with missing and wrong ones as in `of`."""
        import pyarrow as pa

        column = images.label_column()
        if pa.types.is_integer(column.type) and column.type != pa.uint64() and not self.names:
            return np.asarray(column.cast(pa.int64()).fill_null(-1), dtype=np.int64)
        return np.array([self.of(stored) for stored in column.to_pylist()], dtype=np.int64)

    def checked(self, row: EncodedImage) -> int:
        """The class number of a row. Raises `BadImageError` if it is missing or out of range."""
        label = self.of(row.label)
        if 0 <= label < self.count:
            return label
        wrong = "a missing label" if label == -1 else f"{row.label!r}"
        raise BadImageError(f"{row.where}: expected a label in 0..{self.count - 1}, got {wrong}")


def plain(stored: Any) -> Any:
    """Simplify a stored label: a list of one becomes its item, a whole float an int, and NaN and the empty list become None.

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
    """The label column of one split of a source."""

    split: str
    """The source's name of the split."""
    column: str
    """The name of the column."""
    names: tuple[str, ...]
    """The names of the classes in label order, if the source declares them."""
    boolean: bool
    """Whether labels are stored as booleans."""
    listed: bool
    """Whether labels are stored in lists."""
    images: Callable[[], EncodedImages]
    """Opens the split; called only if its labels must be read."""

    def stored(self) -> set[Any]:
        """The distinct labels that occur, missing ones included."""
        stored = self.images().label_column().to_pylist()
        stored = stored if self.listed else set(stored)
        return {tuple(value) if isinstance(value, list) else value for value in map(plain, stored)}

    def values(self) -> set[Any]:
        """The distinct labels that occur, without missing ones. Raises `GlimpseZooError` for a label that is not one class."""
        found = self.stored() - {None, -1}
        wrong = next((value for value in found if not isinstance(value, str | int)), None)
        if wrong is None:
            return found
        what = f"a list of {len(wrong)}" if isinstance(wrong, tuple) else repr(wrong)
        raise GlimpseZooError(
            f"expected one class per row in the column {self.column!r} of {self.split}, got {what}: "
            "name another column by --set data.label=COLUMN"
        )


def classes_of(columns: Sequence[LabelColumn]) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """The classes of all splits, and per split how its labels become their numbers. The first column decides the order of the classes.

    Raises `GlimpseZooError` if the splits do not have the same classes.
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
    if all(column.boolean for column in columns):
        return ("False", "True"), {column.split: Labels(2) for column in columns}
    if values == {1} and any(-1 in column.stored() for column in columns):  # not one class with missing labels, but two classes
        raise GlimpseZooError(
            f"expected class numbers from 0 in the column {columns[0].column!r}, got -1, which is a missing label, and 1: "
            "store 0 and 1, or name another column by --set data.label=COLUMN"
        )
    if all(isinstance(value, int) for value in values):
        values = _numbers(values, columns[0].column)
    counted = values == set(range(len(values)))  # then the labels are the class numbers
    classes = tuple(sorted(values))
    labels = Labels(len(classes), {} if counted else {value: number for number, value in enumerate(classes)})
    return tuple(map(str, classes)), {column.split: labels for column in columns}


def _numbers(values: Iterable[int], column: str) -> set[int]:
    """The labels that are classes among numbers: those from 0 on. Raises `GlimpseZooError` for numbers unlikely to be classes."""
    found = {value for value in values if value >= 0}
    largest = max(found, default=-1)
    if largest >= PLAUSIBLE and largest >= 10 * len(found):
        raise GlimpseZooError(
            f"expected class numbers in the column {column!r}, got {len(found)} different ones up to {largest}: "
            "name another column by --set data.label=COLUMN, or store the classes as text"
        )
    return found


def renumbered(labels: Labels, columns: Sequence[LabelColumn]) -> tuple[str, ...]:
    """A note if the classes are numbers that are not counted from 0 without gaps; () for others. columns: of which the labels are."""
    numbers = [stored for stored in labels.names if isinstance(stored, int)]
    if not numbers or any(column.names for column in columns):
        return ()
    where = f"in the column {columns[0].column!r}"
    if len(numbers) == 1:
        return (f"the number {numbers[0]} {where} is the name of a class",)
    return (f"the {len(numbers)} numbers {where}, {min(numbers)} to {max(numbers)}, are names of classes",)


def _named(columns: Sequence[LabelColumn]) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """The classes of a source that names them. Numbers and names in all splits are matched by the class names."""
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
            numbers = {value: place[str(value)] for value in column.values() if isinstance(value, int)}  # of classes called '0', '1', ...
            found[column.split] = Labels(len(classes), {**place, **numbers})
        elif names == classes:
            found[column.split] = Labels(len(classes))
        else:
            found[column.split] = Labels(len(classes), {stored: place[name] for stored, name in enumerate(names)})
        if column.names and column.listed:
            column.values()  # raises an error if a row has several classes
    return classes, found


def labels_by(names: tuple[str, ...], classes: tuple[str, ...], where: str) -> Labels:
    """The labels of a set from the catalogue, read from a copy that may name the same classes in another order.

    names: the copy's. If none of them are the catalogue's, they are taken as other words for the same classes in the same order.
    Raises `GlimpseZooError` if only some of them are the catalogue's.
    """
    known = set(names) & set(classes)
    if not known or names[: len(classes)] == classes:
        return Labels(len(classes))
    if len(known) < len(classes):
        missing = next(name for name in classes if name not in known)
        raise GlimpseZooError(f"expected the class {missing!r} among those that the files of {where} name, got none: fetch the files again")
    place = {name: number for number, name in enumerate(classes)}
    return Labels(len(classes), {stored: place[name] for stored, name in enumerate(names) if name in place})


def content_of(images: EncodedImages, labels: Labels) -> str:
    """Hash of a source's content, with the meaning of its labels unless they are the class numbers."""
    return f"{images.digest()}/{sorted(labels.names.items(), key=str)}" if labels.names else images.digest()
