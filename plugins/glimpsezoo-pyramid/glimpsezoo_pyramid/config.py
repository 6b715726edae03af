"""The settings that `--set` and a recipe's phases reach. Imports no torch."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from glimpsezoo import GlimpseZooError, PolicyName, Settings
from glimpsezoo_pyramid.architectures import CELLS, even_rate


class PyramidConfig(Settings):
    """Settings of the pyramid models."""

    levels: int | None = Field(default=None, ge=1, le=8)
    """Pyramid levels K, one per step. Images are resized by area to base x 2^(K - 1) pixels. None: as many levels as fit without
    enlarging the images."""
    decide: Literal["sample", "mode"] = "sample"
    """How a cell is chosen: sample draws it with its probability, as the paper does; mode takes it if its probability is at least one
    half."""
    policy: PolicyName = "learned"
    """What chooses where to look: learned, or any other policy (`glimpsezoo list policies`) for cells. `random` draws every cell at one
    rate; the others take one cell per node: `centre` the middle one, `scan` the next one in reading order at each level."""
    cells: float = Field(default=2.0, gt=0, lt=CELLS)
    """The expected number of cells that `random` draws per node, of 9."""


class BaselineConfig(Settings):
    """Settings of the fully convolutional baselines."""

    resolution: int | None = Field(default=None, ge=1)
    """The side in pixels to which images are resized by area. None: the images' own size."""


class BaselineOptions(Settings):
    """Options of a baseline's training phase."""

    resolution: int | None = Field(default=None, ge=1)
    """Train on images resized to this side in pixels (gradual learning). None: the model's resolution."""


class LearningRule(Settings):
    """Options of a training phase of a pyramid model: learning rules 1 to 6."""

    levels: int | None = Field(default=None, ge=1, le=8)
    """The levels allowed in this stage (rule 5). None: all of the model's."""
    samples: int = Field(default=2, ge=1)
    """Monte Carlo samples M per image (eq. 11)."""
    baseline: bool = True
    """Whether to subtract the moving baseline b (eq. 12)."""
    lambda_f: float = Field(default=1e-6, ge=0)
    """The weight of the REINFORCE term (eq. 1)."""
    lambda_t: float = Field(default=1e-7, ge=0)
    """The weight of R_t (eq. 2)."""
    lambda_r: float = Field(default=1e-7, ge=0)
    """The weight of R_r (eq. 3)."""
    c_t: tuple[float, ...] = (2.0,)
    """The target number of locations per image beyond the first (eq. 2), for runs of 2, 3, ... levels; the last number is this stage's."""
    c_r: tuple[float, ...] | None = None
    """The target of the average probability of a cell (eq. 3), for the same runs. None: the rate that spreads c_t evenly."""
    level_weights: tuple[float, ...] | None = None
    """lambda_z for runs of 1, 2, ... levels (rule 6). None: only the run of all levels counts (rules 4 and 5)."""

    @field_validator("c_t", "c_r", mode="before")
    @classmethod
    def _one_number(cls, value: object) -> object:
        return (value,) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _lengths(self) -> "LearningRule":
        if self.levels and self.level_weights and len(self.level_weights) != self.levels:
            raise ValueError(f"expected one weight per level, {self.levels} in all; give as many as levels")
        if self.c_r is not None and len(self.c_r) != len(self.c_t):
            raise ValueError(f"expected as many numbers as c_t has ({len(self.c_t)})")
        if any(not c > 0 for c in self.c_t) or any(not 0 <= c <= 1 for c in self.c_r or ()):
            raise ValueError("expected c_t above 0 locations and c_r a probability in [0, 1]")
        if any(weight < 0 for weight in self.level_weights or ()):
            raise ValueError("expected level_weights of at least 0")
        return self

    def weights(self, levels: int) -> tuple[float, ...]:
        """lambda_z for runs of 1, 2, ..., `levels` levels."""
        return self.level_weights or (0.0,) * (levels - 1) + (1.0,)

    def targets(self, allowed: int, levels: int) -> tuple[float, float]:
        """(c_t, c_r) for runs of `allowed` levels (2 or more) in a stage that allows `levels`.

        Raises `GlimpseZooError` if c_t has no number for such runs.
        """
        place = len(self.c_t) - 1 - (levels - allowed)
        if place < 0:
            raise GlimpseZooError(f"expected a c_t for runs of {allowed} to {levels} levels, got {len(self.c_t)}: give one for each")
        c_t = self.c_t[place]
        return c_t, even_rate(c_t, allowed) if self.c_r is None else self.c_r[place]
