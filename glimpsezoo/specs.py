"""What a plugin registers: plain descriptions with import strings, so that listing them loads nothing heavy."""

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from glimpsezoo.errors import GlimpseZooError, one_line

_EMPTY: Mapping[str, Any] = MappingProxyType({})


def load_string(reference: str) -> Any:
    """Import `package.module:attribute`. Raises `GlimpseZooError` if the string has another form or the import fails.

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
    """Where a spec comes from."""

    plugin: str
    """The name of the entry point."""
    distribution: str
    """The installed distribution that has the entry point."""
    version: str
    """The distribution's version."""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The base of everything that a plugin registers."""

    noun: ClassVar[str]
    """What messages call such a thing."""
    name: str
    """The name that users type."""
    description: str
    """One sentence."""
    prefix: bool = False
    """Whether the name ends in ':' and the spec answers for every name that begins with it (`timm:resnet18`)."""
    provenance: Provenance | None = None
    """Where the spec comes from. The host sets it."""
    unavailable: str = ""
    """Why it cannot be used on this machine (a missing optional package, say) and what to do, in one line; '' if it can."""

    def __post_init__(self) -> None:
        if self.prefix != self.name.endswith(":"):
            raise GlimpseZooError(
                f"expected a name that ends in ':' if and only if prefix=True, got {self.name!r} with prefix={self.prefix}"
            )

    @property
    def title(self) -> str:
        """The name as lists show it: after a prefix, NAME."""
        return self.name + ("NAME" if self.prefix else "")


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A model that users can name."""

    noun = "model"

    model: str
    """Import string of a `GlimpseModel` subclass, built as `model(config, task)`."""
    config: str
    """Import string of the pydantic model that validates its `--set` keys. Its module must import neither torch nor timm."""
    paper: str = ""
    """Where the model comes from: an address or a citation."""
    prefix_key: str = ""
    """For a prefix spec: the config key that receives the text after the prefix."""
    training_step: str | None = None
    """Import string of `training_step(model, images, labels, phase) -> {term: loss}`; None if it cannot be trained here."""
    recipes: str | None = None
    """Import package that holds the recipe files `MODEL.DATA.toml`."""
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _EMPTY)
    """Data set name -> the config values that differ from the config's own defaults for this data set."""


@dataclass(frozen=True)
class Task:
    """What a model must solve on a data set: the images it gets and the classes it tells apart."""

    image_size: tuple[int, int]
    """(height, width) in pixels."""
    channels: int
    """1 for grey, 3 for colour."""
    classes: tuple[str, ...]
    """The names of the classes in label order."""
    mean: tuple[float, ...] = ()
    """Per channel, of pixels in [0, 1]; models normalise with it inside. 0 by default."""
    std: tuple[float, ...] = ()
    """The standard deviation, likewise. 1 by default."""

    def __post_init__(self) -> None:
        if not self.mean:
            object.__setattr__(self, "mean", (0.0,) * self.channels)
            object.__setattr__(self, "std", (1.0,) * self.channels)
        if not len(self.mean) == len(self.std) == self.channels:
            raise GlimpseZooError(f"expected a mean and a std for each of {self.channels} channels, got {self.mean} and {self.std}")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A data set that users can name, with its card."""

    noun = "data set"

    source: str
    """Import string of `open(spec, name, split, config, data_dir) -> ImageData`."""
    config: str = "glimpsezoo.settings:NoSettings"
    """Import string of the pydantic model that validates `--set data.KEY` (torch-free)."""
    task: Task | None = None
    """What a model must solve on it; None if it is known only once the data are open (a prefix spec)."""
    find_task: str = ""
    """For a spec without `task`: import string of `find_task(spec, name, config, data_dir) -> Task`, which neither decodes an image nor
    hashes a file; '' if only opening the data tells."""
    splits: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    """Split name -> number of examples. Every data set has 'train', 'calibration' and 'test'."""
    license: str = ""
    """The terms under which the images may be used."""
    homepage: str = ""
    """Where the images come from."""
    transform: str = ""
    """What is done to the images before a model sees them."""
    crop: float = 1.0
    """The share of the shorter side that the centre crop of its images covers, unless `--set data.crop` says another."""
    calibration: str = ""
    """How the calibration split is chosen; never from the test split."""
    embedded: bool = False
    """Whether an installed package contains the images, so that no other file decides what they are."""
    local: bool = False
    """Whether the rest of a prefix spec's name is a path on the user's machine. Cards and results show only its last part."""
    licence: InitVar[str] = ""
    """The former name of `license`."""

    def __post_init__(self, licence: str) -> None:
        super().__post_init__()
        if licence:
            warnings.warn("DatasetSpec(licence=...) is now DatasetSpec(license=...)", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "license", licence)


@dataclass(frozen=True, kw_only=True)
class ExitRuleSpec(Spec):
    """A rule that decides after which step an image exits."""

    noun = "exit rule"

    rule: str
    """Import string of an `ExitRule`, built from its parameters by name; commands take a `ThresholdRule` only."""


@dataclass(frozen=True, kw_only=True)
class PolicySpec(Spec):
    """A policy: what chooses where a model looks, in place of the model."""

    noun = "policy"

    policy: str
    """Import string of a `Policy`, built without arguments, whose `name` is that of the spec."""


@dataclass(frozen=True, kw_only=True)
class CorruptionSpec(Spec):
    """A corruption of images at severities 1 to 5."""

    noun = "corruption"

    corrupt: str
    """Import string of `corrupt(images, severity, preset, noise) -> images`, on RGB images [B, 3, H, W] in [0, 1]. The preset is '224',
    '64' or '32', by the images' size. Everything random must come from `noise`, which is per image."""
    benchmark: bool = False
    """Whether it is one of the 15 corruptions over which the mean and mCE are taken."""
    by_channel: bool = False
    """Whether it changes every channel separately and in the same way. Grey images then come as [B, 1, H, W], in a third of the time."""


@dataclass(frozen=True, kw_only=True)
class AttackSpec(Spec):
    """An adversarial attack."""

    noun = "attack"

    attack: str
    """Import string of an `Attack`, built from its settings."""
    config: str
    """Import string of the pydantic model of its settings (torch-free)."""


@dataclass(frozen=True, kw_only=True)
class ImporterSpec(Spec):
    """Turns a foreign checkpoint into a card. The spec's name is the model's name."""

    noun = "importer"

    importer: str
    """Import string of `importer(checkpoint: Path, settings: dict) -> (config, task, state_dict, notes)`. A fifth item is the `Published`
    numbers of the authors, or None; a sixth, their settings of the data beside the image size, such as `{"crop": 0.904}`."""


@dataclass(frozen=True, kw_only=True)
class LoggerSpec(Spec):
    """A logger: something that is told how a training goes. Its name is what users type after `train --log`."""

    noun = "logger"

    logger: str
    """Import string of a `TrainingLogger`, built as `logger(folder, name, settings)`."""


@dataclass(frozen=True, kw_only=True)
class PaperSpec(Spec):
    """A paper whose tables the zoo reproduces. The description is its title."""

    noun = "paper"

    tables: str
    """Import package that holds `NAME.toml`, read by `glimpsezoo.zoo.papers`."""
    authors: str
    """The authors and the year."""
    url: str = ""
    """Where it can be read."""


@dataclass(frozen=True, kw_only=True)
class MeasureSpec(Spec):
    """Something that runs measure. Its name is what users type after `--measure`, and its key in result.json."""

    noun = "measure"

    measure: str
    """Import string of a `Measure`."""
    default: bool = False
    """Whether a run without `--measure` measures it."""
    follows: str = ""
    """Name of the measure that it belongs to: it is measured whenever that one is, and cannot be asked for alone."""
    also: tuple[str, ...] = ()
    """Further words (up to a colon) that `Measure.takes` accepts after `--measure`, besides its name, corruptions and attacks. A word that
    no measure lists is a typing error, reported before any measure is imported."""
