"""result.json (schema 1): the records of a run, its model, its data and its machine. Each measure adds a section of its own.

Conventions, the same in every section: an accuracy, a share and a confidence lie in [0, 1]; one multiply-accumulate is one MAC and
FLOPs are two of them; a cost is per image; steps count from 1; NLL is in nats; times are in the unit that the key names.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, create_model

from glimpsezoo.evaluation.environment import Environment
from glimpsezoo.hashing import content_hash
from glimpsezoo.schema import SCHEMA, Count, Positive, Section, Version

NEVER_TRAINED = "a size that it was never trained at"
OWN_POLICIES = ("learned", "whole image")  # of models that look as they were built to


class Units(Section):
    """Units of work."""

    done: Count
    """How many this run measured."""
    reused: Count
    """How many it found finished."""


class Run(Section):
    """The run that measured."""

    id: str
    """A hash of the request."""
    command: str
    """As typed, paths by their base name."""
    started: AwareDatetime
    """When it started."""
    finished: AwareDatetime | None
    """When it finished; null before the end."""
    seed: Count
    """Seed of every random number."""
    limit: Positive | None
    """How many images were asked for, null for all."""
    status: Literal["done", "failed", "interrupted"]
    """'failed' if some units failed (`errors` names them)."""
    units: Units
    """Units of its work."""


class Checkpoint(Section):
    """Trained weights."""

    uri: str
    """Where they came from."""
    revision: str | None
    """The commit there, where there is one."""
    sha256: str
    """Hash of their file."""


class TrainedOn(Section):
    """The training of a card."""

    data: str
    """Name of its data."""
    settings: dict[str, Any]
    """Settings of the data that differ from the data set's defaults and decide its images."""
    image_size: tuple[Positive, Positive]
    """Height, width in pixels."""
    recipe: str | None = None
    """A hash of the recipe that trainings with other seeds share; null where no card tells."""
    seed: int | None = None
    """The training seed, which is not that of the run; null where no card tells."""


class Model(Section):
    """The model that was measured."""

    name: str
    """As in tables: for a card its name, or its path where only that finds it."""
    plugin: str
    """The distribution that has it."""
    plugin_version: str
    """Version of that distribution."""
    config: dict[str, Any]
    """Its settings."""
    parameters: Count
    """Number of parameters."""
    steps: Positive
    """The most steps that it takes."""
    policy: str
    """What chooses where it looks: learned, or another policy."""
    upper_bound: bool = False
    """Whether its policy reads the labels, so that its accuracy is an upper bound."""
    sees: Literal["none", "lowres", "full image"]
    """What the first step sees of the image."""
    checkpoint: Checkpoint | None
    """Its weights, null if untrained."""
    trained_on: TrainedOn | None = None
    """The training of its card, null where no card tells."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of convolutions and products. Weights, places and logits are float32 in any case."""
    compiled: bool = False
    """Whether torch compiled its phases, with frozen weights."""


class Inferred(Section):
    """What was inferred about a data set that does not declare it."""

    classes: tuple[str, ...]
    """Names of the classes, in label order."""
    splits: dict[str, str]
    """train, calibration, test -> what each was read from."""
    columns: dict[str, str] = Field(default={})
    """'image' and 'label' -> their columns, for a table."""
    configuration: str | None = None
    """Which of the data set's configurations was read."""
    left_out: dict[str, str] = Field(default={})
    """Reason -> how many files were not read for it, and some of their names."""
    notes: tuple[str, ...] = ()
    """What else a reader should know."""


class Data(Section):
    """What it was measured on; source, revision, fingerprint and split are null where no data were opened (FLOPs from the declared size
    alone).
    """

    name: str
    """As `--data` has it."""
    source: str | None
    """Where the images came from."""
    revision: str | None
    """The commit there."""
    fingerprint: str | None
    """A hash of what decides the images."""
    split: str | None
    """Which split was measured."""
    examples: Count
    """How many examples the split has."""
    skipped: Count
    """How many of them could not be read and were left out."""
    image_size: tuple[Positive, Positive]
    """Height, width in pixels."""
    channels: Positive
    """1 for grey, 3 for colour."""
    classes: Positive
    """Number of classes."""
    transform: str | None = None
    """What is done to the images before a model sees them."""
    conversions: dict[str, int] = Field(default={})
    """What was done to stored pixels beyond that -> of how many images."""
    inferred: Inferred | None = None
    """What was inferred; null for data that declare it."""
    settings: dict[str, Any] | None = None
    """Settings of the data set that decide its images; null in results that are older than this key."""


class Failure(Section):
    """A unit of work that failed."""

    measure: str
    """The measure that wanted it."""
    unit: str
    """Its id."""
    images: tuple[int, int]
    """Start, stop."""
    error: str
    """In one line."""


class Hashes(Section):
    """SHA-256 of the files as they were written; checked when they are read."""

    rows: str | None
    """Of rows.parquet beside this file; null if there is none."""
    content: str | None
    """Of everything else in this file, as JSON with sorted keys and null in this place."""


class Result(Section):
    """result.json: all that one run measured of one model on one data set. A section that was not asked for is null or empty.

    `result_type` adds a section for each measure, under its name. Sections of measures that are not installed are kept as they are.
    """

    model_config = ConfigDict(extra="allow")

    schema_version: Version = Field(default=SCHEMA, alias="schema")
    """Version of these keys."""
    run: Run
    """When, and by which command."""
    model: Model
    """Which model."""
    data: Data
    """On which images."""
    environment: Environment
    """On which machine."""
    hashes: Hashes | None = None
    """What was written; null in results that are older than this key."""

    if TYPE_CHECKING:  # declared by `result_type`, behind the sections
        errors: tuple[Failure, ...]
        notes: tuple[str, ...]
        missing: tuple[str, ...]

        def __getattr__(self, name: str) -> Any:
            """The section of a measure."""

    @property
    def departure(self) -> str:
        """See `departure`; '' for a model measured on its own data, and for one whose own data are unknown."""
        return departure(self.model.name, self.model.trained_on, self.data)

    @property
    def at_least(self) -> bool:
        """Whether every number of MACs is a lower bound."""
        return bool(self.missing)

    @property
    def display_name(self) -> str:
        """The model's name, marked if its numbers are not those of a trained model that looks where it learned to, on its own data."""
        marks = (
            policy_marks(self.model.policy, upper_bound=self.model.upper_bound)
            + ([] if self.model.checkpoint else ["untrained"])
            + self._other_data()
        )
        return self.model.name + (f" ({', '.join(marks)})" if marks else "")

    def _other_data(self) -> list[str]:
        trained = self.model.trained_on
        if trained is None or not self.departure:
            return []
        height, width = trained.image_size
        if trained.data != self.data.name:
            return [f"trained on {trained.data}"]
        if trained.image_size != self.data.image_size:
            return [f"trained at {height} px" if height == width else f"trained at {height} x {width} px"]
        return ["other data settings"]

    def renamed(self, name: str) -> "Result":
        """The same result under another name of its model."""
        return self.model_copy(update={"model": self.model.model_copy(update={"name": name}), "hashes": None})

    def sealed(self, rows: bytes | None) -> "Result":
        """The same result with the hash of its rows.parquet and its own, to be written."""
        hashes = Hashes(rows=None if rows is None else hashlib.sha256(rows).hexdigest(), content=None)
        bare = self.model_copy(update={"hashes": hashes})
        content = content_hash(bare.model_dump(mode="json", by_alias=True))
        return bare.model_copy(update={"hashes": hashes.model_copy(update={"content": content})})


def policy_marks(name: str, *, upper_bound: bool) -> list[str]:
    """What is said beside a model's name of the policy that it follows: nothing of its own."""
    return [] if name in OWN_POLICIES else [policy_text(name, upper_bound=upper_bound)]


def policy_text(name: str, *, upper_bound: bool) -> str:
    """A policy in tables, marked if it reads the labels."""
    return f"{name}, an upper bound" if upper_bound else name


def result_type(sections: Mapping[str, tuple[Any, Any, str]], **options: Any) -> type[Result]:
    """`Result` with a section for each measure. sections: name -> type, what stands there if it was not measured, and its description."""
    fields: dict[str, Any] = {name: (kind, Field(empty, description=text)) for name, (kind, empty, text) in sections.items()}
    tail = {
        "errors": (tuple[Failure, ...], Field((), description="Units of work that failed.")),
        "notes": (tuple[str, ...], Field((), description="What was left out, and why.")),
        "missing": (
            tuple[str, ...],
            Field(
                (),
                description="Operations that ran, may hold products and have no formula; with any of them, every number of MACs in any "
                "section is a lower bound.",
            ),
        ),
    }
    return create_model("Result", __base__=Result, __doc__=Result.__doc__, **(fields | tail))


def model_identity(result: Result) -> str:
    """What results of one model share: the weights, the settings and the way to compute."""
    model, used = result.model, result.model.checkpoint
    shared = model.model_dump(mode="json", exclude={"name", "plugin_version", "trained_on", "checkpoint"})
    return json.dumps([shared, used.sha256 if used else f"untrained {result.run.seed}"], sort_keys=True)


def departure(name: str, trained: TrainedOn | None, data: Data) -> str:
    """How the data that a model is measured on differ from those that it was trained on, in a sentence; '' if they do not."""
    if trained is None:
        return ""
    other, resized = trained.data != data.name, trained.image_size != data.image_size
    own, settings = ({key: value for key, value in each.items() if key != "size"} for each in (trained.settings, data.settings or {}))
    changed = {key: settings.get(key) for key in {**own, **settings} if own.get(key) != settings.get(key)}
    if other or data.settings is None:
        changed = {}
    if not (other or resized or changed):
        return ""
    before = [f"on {trained.data}", *([f"at {_px(trained.image_size)}"] if resized else [])]
    after = [*([f"on {data.name}"] if other else []), *([f"at {_px(data.image_size)}, {NEVER_TRAINED}"] if resized else [])]
    after += [f"with data.{key}={'its default' if value is None else value}" for key, value in changed.items()]
    return f"{name} was trained {' '.join(before)}, measured {' '.join(after)}"


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"


def by_text(results: Sequence[Result], texts: Sequence[str]) -> dict[str, str]:
    """Each distinct text -> the results that it applies to, as ' of NAME, NAME'; '' if all have the same text.

    texts: one per result; '' for a result without one.
    """
    found: dict[str, list[str]] = {}
    for result, text in zip(results, texts, strict=True):
        if text:
            found.setdefault(text, []).append(result.model.name)
    return {text: f" of {', '.join(names)}" if len(found) > 1 else "" for text, names in found.items()}


def missing_text(operations: Sequence[str]) -> str:
    """Why costs are unknown."""
    return f"{', '.join(operations)} {'has' if len(operations) == 1 else 'have'} no formula"


def at_least_text(result: Result) -> str:
    """Why the MACs of a result are lower bounds."""
    return f"{result.model.name}: MACs are lower bounds (>=), for {missing_text(result.missing)}"
