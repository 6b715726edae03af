"""Recipes: small TOML files in a plugin that describe how a model was, or can be, trained."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from glimpsezoo.conditions.attacks.settings import L2_EPS, LINF_EPS, Length, Norm, PGDSettings
from glimpsezoo.errors import GlimpseZooError, counted, did_you_mean, one_line
from glimpsezoo.files import file_name
from glimpsezoo.schema import Version
from glimpsezoo.settings import Settings
from glimpsezoo.specs import ModelSpec
from glimpsezoo.toml_text import toml_text
from glimpsezoo.untrusted import toml_values


class AdversarialRecipe(Settings):
    """Adversarial training: the loss is that of images that were changed to raise it, within a budget."""

    method: Literal["pgd", "free"] = "pgd"
    """pgd: the loss of the worst images that PGD finds (Madry et al., 2018, eq. 2.1). free: every batch is replayed, and the gradient of a
    replay's loss updates both the weights and the change of the images (Shafahi et al., 2019, algorithm 1)."""
    norm: Norm = "Linf"
    """The norm that measures the change of an image; 'free' has Linf alone."""
    eps: Length = LINF_EPS
    """The largest change, in pixel values in [0, 1]; by default 8/255 in Linf and 0.5 in L2."""
    step_size: Length | None = None
    """The length of a step of the images; by default 2.5 eps / steps with 'pgd', and eps with 'free'."""
    steps: int = Field(7, ge=1)
    """pgd: steps per batch from a random start, each a run of the model with its gradient."""
    path: Literal["free", "frozen", "detached"] = "detached"
    """pgd: the changed image moves the looks, and the gradient passes through that (free), or does not (detached); or the looks stay those
    of the image itself (frozen)."""
    budget: int | None = Field(None, ge=1)
    """pgd: after how many of the model's steps the attacked prediction is made; by default after the last. For training phases that train
    the first ones only."""
    replays: int = Field(4, ge=2)
    """free: optimiser steps per batch, m in the paper. An epoch has m times as many steps."""

    @property
    def step(self) -> float:
        """The step size in effect."""
        usual = self.eps if self.method == "free" else 2.5 * self.eps / self.steps
        return usual if self.step_size is None else self.step_size

    @model_validator(mode="before")
    @classmethod
    def _eps_of_the_norm(cls, values: Any) -> Any:
        return {"eps": L2_EPS, **values} if isinstance(values, dict) and values.get("norm") == "L2" else values

    @model_validator(mode="after")
    def _of_the_method(self) -> Self:
        """Refuses what would have no effect, and lengths that PGD refuses."""
        others = ("replays",) if self.method == "pgd" else ("steps", "path", "budget")
        if given := [key for key in others if key in self.model_fields_set]:
            raise ValueError(f"expected no {given[0]} with method {self.method!r}, got {getattr(self, given[0])}: leave it out")
        if self.method == "free" and self.norm != "Linf":
            raise ValueError("expected norm 'Linf' with method 'free', got 'L2': choose method 'pgd'")
        lengths = {key: getattr(self, key) for key in ("norm", "eps", "step_size")}
        PGDSettings.parse(lengths, owner="adversarial training")
        return self


class AugMixRecipe(Settings):
    """AugMix (Hendrycks et al., 2020): predictions should agree on an image and on two mixtures of its augmentations.

    The operations are those that none of the 15 corruptions of ImageNet-C contains.
    """

    severity: int = Field(3, ge=1, le=10)
    """The strongest level of an operation; at 10, it is as strong as in AutoAugment."""
    width: int = Field(3, ge=1)
    """Chains of operations that are mixed, k in the paper."""
    depth: int = Field(3, ge=1)
    """The most operations of a chain; each has 1 to `depth`."""
    weight: float = Field(12.0, gt=0)
    """The weight of the Jensen-Shannon divergence, lambda in the paper."""
    budget: int | None = Field(None, ge=1)
    """After how many of the model's steps the predictions are compared; by default after the last."""


OWN = ("seed", "batch_size", "precision", "start")  # keys of a whole recipe that `--set train.KEY` reaches
NOTHING = "one without training phases: leave it out, or add a table [[phase]] to a recipe of your own"
TABLES: dict[str, type[Settings]] = {"adversarial": AdversarialRecipe, "augmix": AugMixRecipe}  # of a training phase


class PhaseRecipe(Settings):
    """A training phase. Its length is given by `epochs` or `steps`."""

    name: str
    """Shown in progress and in the training log."""
    epochs: int | None = Field(None, ge=1)
    """Length in epochs."""
    steps: int | None = Field(None, ge=1)
    """Length in optimiser steps."""
    optimiser: Literal["sgd", "adam", "adamw"]
    """Optimiser."""
    lr: float = Field(gt=0, le=3e38)  # the range of float32
    """Largest learning rate."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD. Not allowed with schedule 'one-cycle', which changes the momentum itself."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of the optimiser."""
    schedule: Literal["constant", "one-cycle", "cosine", "step"] = "constant"
    """Learning rate schedule. In 'one-cycle' (Smith and Topin, arXiv:1708.07120), the momentum of SGD, or beta1 of Adam and AdamW, falls
    from 0.95 to 0.85 while the learning rate rises, and rises again while it falls."""
    milestones: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.8, 0.9)
    """Schedule 'step' multiplies the learning rate by `decay` after each of these shares of the phase."""
    decay: float = Field(0.2, gt=0)
    """Factor of schedule 'step'."""
    clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient."""
    trainable: tuple[str, ...] = ("*",)
    """Patterns (`fnmatch`) of the names of the trainable parameters; all others are frozen."""
    augment: bool = True
    """Whether the data set's own augmentation changes training images."""
    adversarial: AdversarialRecipe | None = None
    """Adversarial training, a table `[phase.adversarial]`; none trains on the images as they are."""
    augmix: AugMixRecipe | None = None
    """AugMix, a table `[phase.augmix]`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options for the model's training step."""

    @property
    def replays(self) -> int:
        """Optimiser steps per batch: one, except in adversarial training for free."""
        return self.adversarial.replays if self.adversarial and self.adversarial.method == "free" else 1

    def without_momentum(self, values: Mapping[str, Any]) -> Self:
        """The phase without its own momentum if these `values` choose the schedule that changes it, and no momentum."""
        if values.get("schedule") != "one-cycle" or "momentum" in values:
            return self
        return type(self).model_validate(self.model_dump(exclude_unset=True, exclude={"momentum"}))

    def changed(self, values: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> Self:
        """The phase with other `values`, and with other values in its `tables`; text is parsed."""
        known = {**self.model_dump(exclude_unset=True), **values}
        for name, given in tables.items():
            known[name] = TABLES[name].parse({**(known.get(name) or {}), **given}, owner=f"train.{name}")
        return type(self).parse(known, owner="train")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            got = "neither" if self.epochs is None else "both"
            raise ValueError(f"expected either epochs or steps in phase {self.name!r}, got {got}")
        return self

    @model_validator(mode="after")
    def _one_momentum(self) -> Self:
        if self.schedule == "one-cycle" and "momentum" in self.model_fields_set:  # the value would have no effect
            raise ValueError(
                f"expected no momentum with schedule 'one-cycle', which changes it itself, got {self.momentum:g} in phase {self.name!r}: "
                "leave it out, or choose another schedule"
            )
        return self


class Recipe(Settings):
    """A whole training."""

    format: Version = Field(1, exclude=True)  # it says nothing about the training
    """Version of these keys."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of all random numbers."""
    batch_size: int = Field(ge=2)
    """Images per optimiser step."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of convolutions and products; 'auto' is bfloat16 on a GPU and float32 elsewhere. Weights are always float32."""
    start: str | None = None
    """Card to start from: its weights are loaded into the networks that both models have."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the model."""
    data: dict[str, Any] = Field(default_factory=dict)
    """Settings of the data set."""
    phase: tuple[PhaseRecipe, ...] = ()
    """Training phases in their order, each one a table `[[phase]]`. Without any, the card has the weights of `start` under its settings."""

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if not (self.phase or self.start):
            raise ValueError("expected a training phase or a card to start from, got neither: add a table [[phase]]")
        return self

    @classmethod
    def from_toml(cls, text: str, *, name: str) -> Self:
        """Parse the text of a recipe; errors name the file `name`. Raises `GlimpseZooError` for invalid TOML and for an invalid recipe."""
        try:
            values = toml_values(text)
        except ValueError as error:
            raise GlimpseZooError(f"expected a recipe in TOML, got {name} ({one_line(error):.160}): correct it") from None
        return cls.parse(values, owner=f"recipe {name}")

    def to_toml(self) -> str:
        """The text of a recipe file with everything that was set; `from_toml` reads it back."""
        values = {"seed": self.seed, **self.model_dump(mode="json", exclude_unset=True)}
        return toml_text({key: value for key, value in values.items() if value not in ({}, [])})  # in a phase, an empty table has a meaning

    def scaled(self, *, epochs: int | None = None, lr: float | None = None) -> Self:
        """Apply `--epochs` and `--lr`, which are those of the whole training: its phases keep their proportions.

        epochs: of all phases together, at least one each. lr: the largest learning rate. Raises `GlimpseZooError`.
        """
        if not self.phase and (epochs is not None or lr is not None):
            raise GlimpseZooError(f"--{'lr' if epochs is None else 'epochs'} expects a recipe that trains, got {NOTHING}")
        lengths = shares(self.phase, epochs) if epochs is not None else [None] * len(self.phase)
        factor = lr / max(phase.lr for phase in self.phase) if lr is not None else 1.0
        phases = []
        for phase, length in zip(self.phase, lengths, strict=True):
            values: dict[str, Any] = {"epochs": length, "steps": None} if length else {}
            phases.append(phase.changed(values | ({"lr": phase.lr * factor} if lr is not None else {}), {}))
        return self.model_copy(update={"phase": tuple(phases)})

    def override(self, values: Mapping[str, Any]) -> Self:
        """Apply `--set train.KEY=value`: a key of the whole training, or a key that is set in every training phase.

        A key of a table in a phase has the table's name before it (`adversarial.eps`); the first one makes the table.
        """
        check_keys(values)
        own = OWN
        every: dict[str, Any] = {}
        tables: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            name, dot, inner = key.partition(".")
            if dot and name in TABLES:
                tables.setdefault(name, {})[inner] = value
            elif name in TABLES and str(value).lower() != "none":
                raise GlimpseZooError(f"expected train.{name}=none, or a key of this table as in train.{name}.KEY, got {value!r}")
            elif key in PhaseRecipe.model_fields:
                every[key] = value
        if both := next((name for name in tables if name in every), None):
            key = f"train.{both}.{next(iter(tables[both]))}"
            raise GlimpseZooError(f"expected either --set train.{both}=none or --set {key}, got both: leave one out")
        if not self.phase and (every or tables):
            raise GlimpseZooError(f"expected a recipe that trains, to set train.{next(iter(every or tables))} in, got {NOTHING}")
        # `epochs` replaces `steps` and vice versa. Only keys that were set are parsed again, because a default is not a choice.
        every = {other: None for key, other in (("epochs", "steps"), ("steps", "epochs")) if key in every} | every
        # Every phase is parsed separately: text becomes values, and errors name the key that the user typed.
        phases = tuple(phase.without_momentum(every).changed(every, tables) for phase in self.phase)
        whole = {**self.model_dump(exclude_unset=True), **{key: value for key, value in values.items() if key in own}}
        return type(self).parse({**whole, "phase": phases}, owner="train")


def check_keys(keys: Iterable[str]) -> None:
    """Raise `GlimpseZooError` for a key of `--set train.KEY` that neither a recipe nor its phases have."""
    for key in keys:
        if key.partition(".")[0] not in TABLES and key not in PhaseRecipe.model_fields and key not in OWN:
            hint = did_you_mean(key, [*PhaseRecipe.model_fields, *OWN])
            raise GlimpseZooError(f"expected a key of a recipe or of its phases, got 'train.{key}': {hint}")


def shares(phases: Sequence[PhaseRecipe], epochs: int) -> list[int]:
    """Divide `epochs` among training phases in proportion to their lengths, at least one each. Raises `GlimpseZooError`."""
    if epochs < len(phases):
        raise GlimpseZooError(
            f"--epochs expects at least one epoch for each of the {counted(len(phases), 'training phase')} of the recipe, got {epochs}: "
            "give more, or set the length of every phase by --set train.steps=N"
        )
    lengths = [phase.epochs for phase in phases] if all(phase.epochs for phase in phases) else [phase.steps for phase in phases]
    if not all(lengths):
        raise GlimpseZooError("--epochs expects a recipe with all phases in epochs or all in steps, got both: change them in the recipe")
    whole, ends = sum(filter(None, lengths)), list(itertools.accumulate(length or 0 for length in lengths))
    spare = epochs - len(phases)  # beyond one epoch each
    return [1 + spare * end // whole - spare * start // whole for start, end in itertools.pairwise([0, *ends])]


def recipe_names(spec: ModelSpec) -> list[str]:
    """The names of a model's recipes, `MODEL.DATA[.VARIANT]`; for a prefix spec, those of all its models."""
    if spec.recipes is None:
        return []
    names = sorted(entry.name.removesuffix(".toml") for entry in files(spec.recipes).iterdir() if entry.name.endswith(".toml"))
    own = file_name(spec.name) if spec.prefix else f"{spec.name}."
    return [name for name in names if name.startswith(own)]


def recipe_title(spec: ModelSpec, name: str) -> str:
    """The title of a recipe: the first paragraph of the comment at its top."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), recipe_text(spec, name).splitlines())
    return " ".join(line.removeprefix("# ") for line in lines)


def find_recipe(spec: ModelSpec, card_name: str) -> Recipe:
    """The recipe that trains the card `MODEL.DATA[.VARIANT]`. Raises `GlimpseZooError`, which names the nearest recipes."""
    known = recipe_names(spec)
    if file_name(card_name) not in known:
        raise GlimpseZooError(
            f"expected a card that a recipe trains, got {card_name!r}: {did_you_mean(file_name(card_name), known)} (or give a recipe by "
            "--recipe: a file, or the name of a recipe for other data)"
        )
    return read_recipe(spec, card_name)


def read_recipe(spec: ModelSpec, name: str) -> Recipe:
    """A recipe by its name, one of `recipe_names`."""
    return Recipe.from_toml(recipe_text(spec, name), name=name)


def recipe_text(spec: ModelSpec, name: str) -> str:
    """The file of a recipe by its name, with its comments."""
    return (files(str(spec.recipes)) / f"{file_name(name)}.toml").read_text(encoding="utf-8")
