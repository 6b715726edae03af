"""The settings that `--set` and a recipe's phases reach. Imports no torch."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from glimpsezoo import GlimpseZooError, Settings
from glimpsezoo_pyramid.architectures import CELLS, even_rate


class PyramidConfig(Settings):
    """Settings of the pyramid models.

    levels: pyramid levels K (one a step); images are resized to base x 2^(K - 1) pixels by area. None: as many as need no enlargement.
    decide: draw each cell with its probability, as the paper does, or take it from a probability of one half on.
    policy: learned, or a trivial one: `random` draws every cell at one rate, `centre` takes the centre cell of every node,
    `scan` takes one cell a node, the next one in reading order at each level.
    cells: locations that `random` expects a node, of 9.
    """

    levels: int | None = Field(default=None, ge=1, le=8)
    decide: Literal["sample", "mode"] = "sample"
    policy: Literal["learned", "random", "centre", "scan"] = "learned"
    cells: float = Field(default=2.0, gt=0, lt=CELLS)


class BaselineConfig(Settings):
    """Settings of the fully convolutional baselines.

    resolution: side in pixels that images are resized to by area. None: the size they come in.
    """

    resolution: int | None = Field(default=None, ge=1)


class BaselineOptions(Settings):
    """Options of a baseline's training phase. resolution: train on images resized to that side (gradual learning); None: the model's."""

    resolution: int | None = Field(default=None, ge=1)


class LearningRule(Settings):
    """Options of a pyramid model's training phase: learning rules 1 to 6.

    levels: levels allowed in this stage (rule 5); None: all of the model's.
    samples: Monte Carlo samples M an image (eq. 11).
    baseline: subtract the moving baseline b (eq. 12).
    lambda_f, lambda_t, lambda_r: weights of the REINFORCE term (eq. 1), of R_t (eq. 2) and of R_r (eq. 3).
    c_t: locations an image to attend beyond the first (eq. 2), as runs of 2, 3, ... levels aim at; the last number is this stage's.
    c_r: average probability of a cell (eq. 3), likewise. None: the rate at which c_t is spread evenly.
    level_weights: lambda_z for runs of 1, 2, ... levels (rule 6); None: only the run of all levels counts (rules 4 and 5).
    """

    levels: int | None = Field(default=None, ge=1, le=8)
    samples: int = Field(default=2, ge=1)
    baseline: bool = True
    lambda_f: float = Field(default=1e-6, ge=0)
    lambda_t: float = Field(default=1e-7, ge=0)
    lambda_r: float = Field(default=1e-7, ge=0)
    c_t: tuple[float, ...] = (2.0,)
    c_r: tuple[float, ...] | None = None
    level_weights: tuple[float, ...] | None = None

    @field_validator("c_t", "c_r", mode="before")
    @classmethod
    def _one_number(cls, value: object) -> object:
        return (value,) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _lengths(self) -> "LearningRule":
        if self.levels and self.level_weights and len(self.level_weights) != self.levels:
            raise ValueError(f"expected one weight a level, {self.levels} in all; give as many as levels")
        if self.c_r is not None and len(self.c_r) != len(self.c_t):
            raise ValueError(f"expected as many numbers as c_t has ({len(self.c_t)})")
        if any(not c > 0 for c in self.c_t) or any(not 0 <= c <= 1 for c in self.c_r or ()):
            raise ValueError("expected c_t above 0 locations and c_r a probability in [0, 1]")
        if any(weight < 0 for weight in self.level_weights or ()):
            raise ValueError("expected level_weights of at least 0")
        return self

    def weights(self, levels: int) -> tuple[float, ...]:
        """lambda_z for runs of 1 to `levels` levels."""
        return self.level_weights or (0.0,) * (levels - 1) + (1.0,)

    def targets(self, allowed: int, levels: int) -> tuple[float, float]:
        """(c_t, c_r) of the runs of `allowed` levels (2 or more) in a stage that allows `levels`.

        Raises `GlimpseZooError` if c_t has no number for them.
        """
        place = len(self.c_t) - 1 - (levels - allowed)
        if place < 0:
            raise GlimpseZooError(f"expected a c_t for runs of {allowed} to {levels} levels, got {len(self.c_t)}: give one for each")
        c_t = self.c_t[place]
        return c_t, even_rate(c_t, allowed) if self.c_r is None else self.c_r[place]
