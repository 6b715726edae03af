"""What a plugin registers: plain descriptions that hold import strings, so that listing them loads nothing heavy."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from glimpsezoo.errors import GlimpseZooError, one_line

_EMPTY: Mapping[str, Any] = MappingProxyType({})


def load_string(reference: str) -> Any:
    """Import `package.module:attribute`. Raises `GlimpseZooError` if it is no such string or nothing can be imported by it.

    >>> load_string("math:sqrt")(9.0)
    3.0
    """
    module, _, attribute = reference.partition(":")
    if not module or not attribute:
        raise GlimpseZooError(f"expected an import string 'package.module:attribute', got {reference!r}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a plugin's module may fail in any way
        raise GlimpseZooError(f"cannot import {reference!r}, which a plugin names: {one_line(error)}") from error


@dataclass(frozen=True)
class Provenance:
    """Where a spec came from. plugin: the entry point's name. distribution: that one's name. version: of the distribution."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every registered thing has.

    name: what users type. description: one sentence. prefix: the name ends in ':' and the spec answers for every name that begins with it
    (`timm:resnet18`). provenance: where it came from; the host sets it.
    """

    name: str
    description: str
    prefix: bool = False
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if self.prefix != self.name.endswith(":"):
            raise GlimpseZooError(f"a prefix spec's name ends in ':' and no other's does, got {self.name!r} with prefix={self.prefix}")


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A model that users can name.

    `model`: import string of a `GlimpseModel` subclass, built as `model(config, task)`.
    `config`: import string of the pydantic model that validates its `--set` keys; its module must import neither torch nor timm.
    `paper`: where the model comes from: an address or a citation.
    `prefix_key`: for a prefix spec, the config key that takes the text behind the prefix.
    `training_step`: import string of `training_step(model, images, labels, phase) -> {term: loss}`; None if it cannot be trained here.
    `recipes`: import package that holds the recipe files `MODEL.DATA.toml`.
    `defaults`: data set name -> config values that differ from the config's own defaults for it.
    """

    model: str
    config: str
    paper: str = ""
    prefix_key: str = ""
    training_step: str | None = None
    recipes: str | None = None
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _EMPTY)


@dataclass(frozen=True)
class Task:
    """What a data set asks of a model.

    image_size: (height, width) in pixels. channels: 1 for grey, 3 for colour. classes: the names of the classes, in label order.
    mean, std: per channel, of pixels in [0, 1]; a model normalises inside with them. 0 and 1 unless given.
    """

    image_size: tuple[int, int]
    channels: int
    classes: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.mean:
            object.__setattr__(self, "mean", (0.0,) * self.channels)
            object.__setattr__(self, "std", (1.0,) * self.channels)
        if not len(self.mean) == len(self.std) == self.channels:
            raise GlimpseZooError(f"expected a mean and a std for each of {self.channels} channels, got {self.mean} and {self.std}")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A data set that users can name, with its card.

    `source`: import string of `open(spec, name, split, config, data_dir) -> ImageData`.
    `config`: import string of the pydantic model that validates `--set data.KEY` (torch-free).
    `task`: what it asks of a model, or None where only opening it tells (a prefix spec).
    `splits`: split name -> number of examples; 'train', 'calibration' and 'test' exist for every data set.
    `licence`: under which terms the images may be used. `homepage`: where they come from.
    `transform`: what is done to the images before a model sees them.
    `calibration`: how the calibration split is chosen: never from the test split.
    `local`: the rest of a prefix spec's name is a path on the user's machine, of which cards and results say only the last part.
    """

    source: str
    config: str = "glimpsezoo.settings:NoSettings"
    task: Task | None = None
    splits: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    licence: str = ""
    homepage: str = ""
    transform: str = ""
    calibration: str = ""
    local: bool = False


@dataclass(frozen=True, kw_only=True)
class ExitRuleSpec(Spec):
    """A rule that ends an image's looking early. `rule`: import string of an `ExitRule`, built from its parameters by name."""

    rule: str


@dataclass(frozen=True, kw_only=True)
class CorruptionSpec(Spec):
    """A corruption of images at severities 1 to 5.

    `corrupt`: import string of `corrupt(images, severity, preset, noise) -> images`, on RGB images [B, 3, H, W] in [0, 1], with the
    preset '224', '64' or '32' that goes by the images' size; what is random in it follows from `noise`, the images' own.
    benchmark: one of the 15 that the mean and mCE are taken over. by_channel: it changes every channel alone and alike; grey images
    then come as [B, 1, H, W], which takes a third of the time.
    """

    corrupt: str
    benchmark: bool = False
    by_channel: bool = False


@dataclass(frozen=True, kw_only=True)
class AttackSpec(Spec):
    """An attack. `attack`: import string of an `Attack`, built from its settings. `config`: import string of those (torch-free)."""

    attack: str
    config: str


@dataclass(frozen=True, kw_only=True)
class ImporterSpec(Spec):
    """Turns a foreign checkpoint into a card. The spec's name is the model's name.

    `importer`: import string of `importer(checkpoint: Path, settings: dict) -> (config, task, state_dict, notes)`.
    """

    importer: str


@dataclass(frozen=True, kw_only=True)
class PaperSpec(Spec):
    """A paper whose tables the zoo stands beside. The description is its title.

    `tables`: import package that holds `NAME.toml`, read by `glimpsezoo.papers`. `authors`: with the year. `url`: where it can be read.
    """

    tables: str
    authors: str
    url: str = ""
