"""Recipes: the small TOML files beside a plugin that say how a model was, or can be, trained."""

import itertools
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from glimpsezoo.cards import file_name
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.settings import Settings
from glimpsezoo.specs import ModelSpec


class PhaseRecipe(Settings):
    """One phase of training. Its length is `epochs` or `steps` (one optimiser step each).

    name: as progress and the training log have it. epochs, steps: its length. optimiser: by name. lr: the largest learning rate. momentum:
    of SGD; none is given beside schedule 'one-cycle', which moves it. weight_decay: of the optimiser. schedule: how the rate changes;
    'one-cycle' is Smith and Topin's (arXiv:1708.07120), in which the momentum of SGD (of Adam and AdamW: beta1) falls from 0.95 to 0.85
    while the rate rises, and rises again while it falls. milestones: for schedule 'step', the shares of the phase after which the rate is
    multiplied by `decay`. decay: that factor. trainable: patterns (`fnmatch`) on parameter names; the rest is held fixed. augment: vary
    the training images. options: whatever the model's training step reads.
    """

    name: str
    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    optimiser: Literal["sgd", "adam", "adamw"]
    lr: float = Field(gt=0, le=3e38)  # of float32
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "one-cycle", "cosine", "step"] = "constant"
    milestones: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.8, 0.9)
    decay: float = Field(0.2, gt=0)
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    trainable: tuple[str, ...] = ("*",)
    augment: bool = True
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"phase {self.name!r} needs either epochs or steps")
        return self

    @model_validator(mode="after")
    def _one_momentum(self) -> Self:
        if self.schedule == "one-cycle" and "momentum" in self.model_fields_set:  # it would say what is not done
            raise ValueError(
                f"expected no momentum beside schedule 'one-cycle', which moves it itself, got {self.momentum:g} in phase {self.name!r}: "
                "leave it out, or choose another schedule"
            )
        return self


class Recipe(Settings):
    """A whole training.

    seed: of all that is random. batch_size: images a step. settings: of the model; data: of the data set; start: a card whose weights the
    training begins with, in the networks that both have. phase: one after the other, each a table `[[phase]]`. precision: of
    convolutions and products; 'auto' is bfloat16 on a GPU and float32 elsewhere. Weights are float32 in any case.
    """

    seed: int = Field(0, ge=0, lt=2**32)
    batch_size: int = Field(ge=2)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    start: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    phase: tuple[PhaseRecipe, ...] = Field(min_length=1)

    @classmethod
    def from_toml(cls, text: str, *, name: str) -> Self:
        """Parse; `name` names the file in errors. Raises `GlimpseZooError` for what is no TOML or no recipe."""
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise GlimpseZooError(f"the recipe {name} is no TOML: {error}") from None
        return cls.parse(values, owner=f"recipe {name}")

    def override(self, values: Mapping[str, Any]) -> Self:
        """With `--set train.KEY=value`: those of the whole training, any other key in every phase."""
        own = ("seed", "batch_size", "precision", "start")
        for key in values:
            if key not in own and key not in PhaseRecipe.model_fields:
                hint = did_you_mean(key, [*PhaseRecipe.model_fields, *own])
                raise GlimpseZooError(f"expected a key of a training or of its phases, got 'train.{key}': {hint}")
        every = {key: value for key, value in values.items() if key not in own}
        # A length takes the place of the other one. Only what was said is parsed again: a default is no choice.
        every = {other: None for key, other in (("epochs", "steps"), ("steps", "epochs")) if key in every} | every
        # Each phase by itself, so that text becomes values, and errors name the key as it was typed.
        phases = tuple(PhaseRecipe.parse({**phase.model_dump(exclude_unset=True), **every}, owner="train") for phase in self.phase)
        whole = {**self.model_dump(exclude_unset=True), **{key: value for key, value in values.items() if key in own}}
        return type(self).parse({**whole, "phase": phases}, owner="train")


def recipe_names(spec: ModelSpec) -> list[str]:
    """The recipes beside a model's plugin, as `MODEL.DATA[.VARIANT]`; of a prefix spec, those of all its models."""
    if spec.recipes is None:
        return []
    names = sorted(entry.name.removesuffix(".toml") for entry in files(spec.recipes).iterdir() if entry.name.endswith(".toml"))
    own = file_name(spec.name) if spec.prefix else f"{spec.name}."
    return [name for name in names if name.startswith(own)]


def recipe_title(spec: ModelSpec, name: str) -> str:
    """What the first paragraph of a recipe's opening comment says that it trains."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), _text(spec, name).splitlines())
    return " ".join(line.removeprefix("# ") for line in lines)


def find_recipe(spec: ModelSpec, card_name: str) -> Recipe:
    """The recipe of `MODEL.DATA[.VARIANT]`. Raises `GlimpseZooError` naming those that exist."""
    known = recipe_names(spec)
    if file_name(card_name) not in known:
        raise GlimpseZooError(
            f"no recipe trains {card_name!r}: {did_you_mean(file_name(card_name), known)} (or give one by --recipe: a file, or the name of "
            "one for other data)"
        )
    return read_recipe(spec, card_name)


def read_recipe(spec: ModelSpec, name: str) -> Recipe:
    """One of `recipe_names`."""
    return Recipe.from_toml(_text(spec, name), name=name)


def _text(spec: ModelSpec, name: str) -> str:
    return (files(str(spec.recipes)) / f"{file_name(name)}.toml").read_text(encoding="utf-8")
