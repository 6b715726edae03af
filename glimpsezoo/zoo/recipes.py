"""Recipes: small TOML files in a plugin that describe how a model was, or can be, trained."""

import itertools
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.files import file_name
from glimpsezoo.settings import Settings
from glimpsezoo.specs import ModelSpec


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
    """Whether training images are augmented."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options for the model's training step."""

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
    phase: tuple[PhaseRecipe, ...] = Field(min_length=1)
    """Training phases in their order, each one a table `[[phase]]`."""

    @classmethod
    def from_toml(cls, text: str, *, name: str) -> Self:
        """Parse the text of a recipe; errors name the file `name`. Raises `GlimpseZooError` for invalid TOML and for an invalid recipe."""
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise GlimpseZooError(f"expected a recipe in TOML, got {name} ({error}): correct it") from None
        return cls.parse(values, owner=f"recipe {name}")

    def override(self, values: Mapping[str, Any]) -> Self:
        """Apply `--set train.KEY=value`: a key of the whole training, or a key that is set in every training phase."""
        own = ("seed", "batch_size", "precision", "start")
        for key in values:
            if key not in own and key not in PhaseRecipe.model_fields:
                hint = did_you_mean(key, [*PhaseRecipe.model_fields, *own])
                raise GlimpseZooError(f"expected a key of a recipe or of its phases, got 'train.{key}': {hint}")
        every = {key: value for key, value in values.items() if key not in own}
        # `epochs` replaces `steps` and vice versa. Only keys that were set are parsed again, because a default is not a choice.
        every = {other: None for key, other in (("epochs", "steps"), ("steps", "epochs")) if key in every} | every
        # Every phase is parsed separately: text becomes values, and errors name the key that the user typed.
        phases = tuple(PhaseRecipe.parse({**phase.model_dump(exclude_unset=True), **every}, owner="train") for phase in self.phase)
        whole = {**self.model_dump(exclude_unset=True), **{key: value for key, value in values.items() if key in own}}
        return type(self).parse({**whole, "phase": phases}, owner="train")


def recipe_names(spec: ModelSpec) -> list[str]:
    """The names of a model's recipes, `MODEL.DATA[.VARIANT]`; for a prefix spec, those of all its models."""
    if spec.recipes is None:
        return []
    names = sorted(entry.name.removesuffix(".toml") for entry in files(spec.recipes).iterdir() if entry.name.endswith(".toml"))
    own = file_name(spec.name) if spec.prefix else f"{spec.name}."
    return [name for name in names if name.startswith(own)]


def recipe_title(spec: ModelSpec, name: str) -> str:
    """The title of a recipe: the first paragraph of the comment at its top."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), _text(spec, name).splitlines())
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
    return Recipe.from_toml(_text(spec, name), name=name)


def _text(spec: ModelSpec, name: str) -> str:
    return (files(str(spec.recipes)) / f"{file_name(name)}.toml").read_text(encoding="utf-8")
