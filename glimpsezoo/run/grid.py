"""Grids: a TOML file of models, data, settings, conditions and seeds, expanded into cells. Each cell is one run of one model.

Imports no torch, so that a file that is wrong is answered at once.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from glimpsezoo.errors import GlimpseZooError, counted, did_you_mean
from glimpsezoo.files import file_name
from glimpsezoo.measures.catalogue import EXITS
from glimpsezoo.settings import Settings
from glimpsezoo.specs import CorruptionSpec, load_string
from glimpsezoo.toml_text import flat, typed
from glimpsezoo.untrusted import is_number, toml_of
from glimpsezoo.zoo.arguments import split_argument
from glimpsezoo.zoo.cards import find_card
from glimpsezoo.zoo.early import check_condition, check_names, condition_names
from glimpsezoo.zoo.hub import PREFIX
from glimpsezoo.zoo.matching import without_auto
from glimpsezoo.zoo.names import Assignments, argument_names, card_for, data_spec, declared_settings, spec_of
from glimpsezoo.zoo.own_data import DEFAULT_DATA
from glimpsezoo.zoo.plugins import registry

CLEAN = "clean"  # the condition of images as they are
PLAIN = ("accuracy", "flops")  # what cells measure beside their condition, unless `measure` says otherwise
LONGEST = 120  # letters of a cell's name, which is that of a folder
Given = Mapping[str, Any]


class Axes(Settings):
    """The lists of a grid. The grid has a cell for each choice of one item from every list."""

    models: tuple[str, ...] = ()
    """Models and cards, as for `run`."""
    data: tuple[str, ...] | None = None
    """Data sets; left out, each model is measured on the data of its card."""
    settings: dict[str, tuple[str, ...]] = Field({})
    """Key of `--set` -> its values. A key is set for the models and data that declare it."""
    conditions: tuple[str, ...] | None = None
    """clean, corruptions (fog:3) and attacks (pgd:4/255); left out, a cell measures what `measure` says."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] | None = None
    """Noise seeds, values of `--seed`; left out, that of `run`."""
    exclude: tuple[dict[str, str], ...] = ()
    """Cells that are left out: those with all values of a table (model, data, condition, seed, or a key of `settings`)."""

    @classmethod
    def read(cls, file: Path) -> tuple[Self, dict[str, Any]]:
        """The lists of a file, and its other keys, which are options of `run`. Raises `GlimpseZooError`."""
        values = toml_of("--grid", file)
        own = {key: values.pop(key) for key in cls.model_fields if key in values}
        found = {key: _items(key, value) for key, value in own.items()}
        try:
            return cls.model_validate(found), values
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0])
            raise GlimpseZooError(f"--grid expects {_KINDS[key]} for {key!r}, got {own[key]!r:.80}: correct the file") from None

    def with_typed(self, models: Sequence[str], data: str | None, seed: int | None, sets: Sequence[str]) -> Self:
        """The lists with what was typed beside the file in their place. data, seed: None if they were not typed."""
        given = {key: (value,) for key, _, value in (text.partition("=") for text in sets)}
        changes: dict[str, Any] = {"models": tuple(models)} if models else {}
        changes |= {"data": (data,)} if data is not None else {}
        changes |= {"seeds": (seed,)} if seed is not None else {}
        return self.model_copy(update={**changes, "settings": {**self.settings, **given}})


_KINDS = {
    "models": "a list of names",
    "data": "a list of names",
    "settings": "a table whose values are lists",
    "conditions": "a list of clean, corruptions and attacks",
    "seeds": "a list of whole numbers from 0",
    "exclude": "tables",
}


def _items(key: str, value: Any) -> Any:
    """An axis of a file with its items as they are typed. Raises `GlimpseZooError` for an empty one."""
    if key == "settings" and isinstance(value, Mapping):
        return {name: _items(f"settings.{name}", items) for name, items in flat(value)}
    if key == "exclude" and isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
        return [{name: typed(one) for name, one in flat(each)} for each in value]
    if isinstance(value, Mapping):
        return value
    value = value if isinstance(value, list) else [value]
    if not value:
        raise GlimpseZooError(f"--grid expects at least one item for {key!r}, got an empty list: add one, or leave the key out")
    return [typed(each) for each in value] if key.startswith("settings.") else value


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    model: str
    """As an argument of `run`."""
    data: str | None
    settings: dict[str, str]
    """Key of `--set` -> value, from the grid's lists."""
    condition: str | None
    """clean, a corruption or an attack; None in a grid without conditions."""
    seed: int
    """Noise seed."""
    name: str = field(default="", compare=False)
    """Its folder within the grid's."""

    @property
    def values(self) -> dict[str, str]:
        """What `exclude` compares."""
        plain = {"model": self.model, "data": self.data, "condition": self.condition, "seed": str(self.seed)}
        return {**self.settings, **{key: value for key, value in plain.items() if value is not None}}

    @property
    def parts(self) -> list[str]:
        """Its values in words."""
        named = [self.model, self.data, *(f"{key}={value}" for key, value in self.settings.items()), self.condition]
        return [*(each for each in named if each is not None), f"noise-seed={self.seed}"]

    @property
    def sets(self) -> tuple[str, ...]:
        """Its settings as `--set` takes them."""
        return tuple(f"{key}={value}" for key, value in self.settings.items())

    def measures(self, given: str | None) -> tuple[str, ...] | None:
        """The items of `--measure`. given: the option, in common for all cells."""
        said = None if given is None else tuple(part.strip() for part in given.split(","))
        if self.condition is None:
            return said
        return (*(PLAIN if said is None else said), *(() if self.condition == CLEAN else (self.condition,)))


def expand(axes: Axes, given: Given, file: Axes | None = None) -> list[Cell]:
    """The cells of a grid, with names that differ. given: the options of `run` that all cells share. file: the lists in whose place others
    were typed; they may have settings, and exclude cells, that those have not.

    Raises `GlimpseZooError` for a name, a key or a value that nothing has, for a cell that exists twice, and if no cell is left.
    """
    file = file or axes
    if not axes.models:
        raise GlimpseZooError("--grid expects models, got none: add models = [...] to the file, or type some (run MODEL... --grid FILE)")
    for condition in axes.conditions or ():
        if condition != CLEAN:
            check_condition(condition)
    for name in axes.data or ():
        data_spec(name)
    cells = list(_cells(axes, given))
    _check_declared(axes, [*axes.models, *file.models], {key for cell in cells for key in cell.settings})
    cells = _included(axes, cells, cells if axes == file else [*cells, *_cells(file, given)])
    _check_once(cells, given)
    for cell in cells:
        measures = cell.measures(given["measure"]) or ()
        check_names([cell.model], data=cell.data, checkpoint=given["checkpoint"], sets=cell.sets, measures=measures)
        _check_values(cell)
    return _named(cells)


def _cells(axes: Axes, given: Given) -> Iterator[Cell]:
    for model, data, condition in product(axes.models, axes.data or (None,), axes.conditions or (None,)):
        measures = Cell(model, data, {}, condition, 0).measures(given["measure"])
        keys = [key for key in axes.settings if _applies(key, axes, model, data, measures)]
        for values in product(*(axes.settings[key] for key in keys)):
            for seed in axes.seeds or (given["seed"],):
                yield Cell(model, data, dict(zip(keys, values, strict=True)), condition, seed)


def _check_values(cell: Cell) -> None:
    """Raise `GlimpseZooError` for a value that the model or the data of a cell refuse, whatever their other settings are."""
    name, own = split_argument(cell.model)
    if name.startswith(PREFIX):
        return
    card, names = find_card(name), argument_names([cell.model])
    schema = load_string(spec_of(name, card).config)
    sets = without_auto(Assignments.parse((*cell.sets, *(f"{name}.{key}={value}" for key, value in own.items())), names))
    try:
        schema.check(sets.of_model(names, schema.model_fields), owner=name)
        if sets.of("data"):
            data = cell.data or (card.config.data.name if card else DEFAULT_DATA)
            load_string(data_spec(data).config).check(sets.of("data"), owner="data")
    except GlimpseZooError as error:
        raise in_cell(cell, error) from None


def in_cell(cell: Cell, error: GlimpseZooError) -> GlimpseZooError:
    """An error that is known before a cell is measured, with the cell."""
    return GlimpseZooError(f"--grid expects cells that can be measured, got cell {', '.join(cell.parts)}: {error}")


def _applies(key: str, axes: Axes, model: str, data: str | None, measures: Sequence[str] | None) -> bool:
    """Whether a key of `settings` is set in the cells of a model on some data under a condition."""
    owner = _owner(key, [name for each in axes.models for name in argument_names([each])])
    if owner is not None:
        return owner in argument_names([model])
    scope, dot, inner = key.rpartition(".")
    if not dot:
        return split_argument(model).name.startswith(PREFIX) or key in declared_settings(model)
    if scope == "data":
        return data is None or inner in load_string(data_spec(data).config).model_fields
    named = {text.partition(":")[0] for text in measures or ()}
    if scope == EXITS:  # attacks may be on the exit
        return measures is None or not named <= {*PLAIN, *(spec.name for spec in registry().all(CorruptionSpec))}
    return scope not in condition_names() or measures is None or scope in named or not named <= {*PLAIN, *condition_names()}


def _owner(key: str, names: Sequence[str]) -> str | None:
    """The model whose prefix a key has, if any."""
    return next((name for name in sorted(names, key=len, reverse=True) if key.startswith(f"{name}.")), None)


def _check_declared(axes: Axes, models: Sequence[str], used: Collection[str]) -> None:
    """Raise `GlimpseZooError` for a key of `settings` that no cell has, and that no other model declares."""
    known = {name for model in models for name in declared_settings(model)}
    for key in axes.settings:
        if key not in used and key not in known and _owner(key, argument_names(models)) is None:
            known |= {f"data.{name}" for data in axes.data or () for name in load_string(data_spec(data).config).model_fields}
            raise GlimpseZooError(f"--grid expects settings of its models, data or conditions, got {key!r}: {did_you_mean(key, known)}")


def _included(axes: Axes, cells: Sequence[Cell], every: Sequence[Cell]) -> list[Cell]:
    """The cells that `exclude` leaves. every: also those of the file in whose place others were typed.

    Raises `GlimpseZooError` for a key that no cell has, for a table that names no cell, and if nothing is left.
    """
    known = {key for cell in every for key in cell.values}
    for table in axes.exclude:
        for key in table:
            if key not in known:
                hint = did_you_mean(key, known)
                raise GlimpseZooError(f"--grid expects model, data, condition, seed or a setting in 'exclude', got {key!r}: {hint}")
        if not any(table.items() <= cell.values.items() for cell in every):
            said = ", ".join(f"{key} = {value!r}" for key, value in table.items())
            why = [
                f"{key} is {' or '.join(dict.fromkeys(repr(cell.values[key]) for cell in every if key in cell.values))}" for key in table
            ]
            raise GlimpseZooError(
                f"--grid expects tables in 'exclude' that each name a cell, got {{{said}}}, which names none ({'; '.join(why)}): "
                "correct it, or remove it"
            )
    left = [cell for cell in cells if not any(table and table.items() <= cell.values.items() for table in axes.exclude)]
    if not left:
        raise GlimpseZooError(f"--grid expects cells that 'exclude' leaves, got none of {counted(len(cells), 'cell')}: exclude fewer")
    return left


def _check_once(cells: Sequence[Cell], given: Given) -> None:
    """Raise `GlimpseZooError` for two cells that would measure the same."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        name, own = split_argument(cell.model)
        identity = [_weights(name, cell.data, given["checkpoint"]), cell.data, {**cell.settings, **own}, cell.condition, cell.seed]
        other = seen.setdefault(json.dumps(identity, sort_keys=True), cell)
        if other is not cell:
            twice = " and ".join(dict.fromkeys(", ".join(each.parts) for each in (other, cell)))
            raise GlimpseZooError(f"--grid expects each cell once, got {twice} twice: remove one of them from the file")


def _weights(model: str, data: str | None, checkpoint: str | None) -> str:
    """What tells the weights of two cells apart: the card's folder, else the name."""
    if model.startswith(PREFIX):
        return model
    card = find_card(model)
    if card is None and checkpoint is None:
        card = card_for(model, data or DEFAULT_DATA)
    return str(card.folder.resolve()) if card else model


def _named(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with names for their folders: their values, and where these are too long or collide, a hash of them."""
    names = [file_name(",".join(cell.parts)).replace(" ", "-") for cell in cells]
    often = Counter(names)

    def unique(name: str, cell: Cell) -> str:
        digest = hashlib.sha256(json.dumps(cell.values, sort_keys=True).encode()).hexdigest()[:8]
        return f"{name[:LONGEST]}-{digest}" if len(name) > LONGEST or often[name] > 1 else name

    return [replace(cell, name=unique(name, cell)) for cell, name in zip(cells, names, strict=True)]


@dataclass(frozen=True)
class Shard:
    """One of several parts of a grid, for a job of its own."""

    number: int
    """From 1."""
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`3/16`. Raises `GlimpseZooError`."""
        number, _, of = text.partition("/")
        if not (text.isascii() and is_number(number) and is_number(of) and 1 <= int(number) <= int(of)):
            raise GlimpseZooError(f"--shard expects K/N with K from 1 to N, got {text!r}: write 3/16 for the third of 16 shards")
        return cls(int(number), int(of))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def chosen(self, weights: Sequence[float]) -> list[int]:
        """The places of this shard's items. Every item is in one shard; the largest come first, each into the shard that has least.

        >>> [Shard(k, 2).chosen([5, 1, 4, 3]) for k in (1, 2)]
        [[0, 1], [2, 3]]
        """
        loads, own = [0.0] * min(self.of, len(weights)), []  # shards beyond the number of items get none
        for place in sorted(range(len(weights)), key=lambda place: (-weights[place], place)):
            least = loads.index(min(loads))
            loads[least] += max(1, weights[place])
            if least == self.number - 1:
                own.append(place)
        return sorted(own)


def folder_of(file: Path, given: Given) -> Path:
    """The folder of a grid's results: named after its file and after the options that all of its cells share."""
    if given["output"]:
        return Path(given["output"])
    kept = ("data_dir", "split", "limit", "precision", "compile", "checkpoint", "measure", "corrupted_dir")
    digest = hashlib.sha256(json.dumps([given[key] for key in kept]).encode()).hexdigest()
    return Path("runs", f"{file_name(file.stem).replace(' ', '-')}-{digest[:8]}")
