"""The settings of attacks: the common ones, and each attack's own with its defaults. Imports no torch."""

from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from glimpsezoo.settings import Settings

LINF_EPS, L2_EPS = 8 / 255, 0.5  # the usual budgets for images in [0, 1] (RobustBench uses 8/255 and 0.5 for small images)
LEAST_EPS = 1e-6  # near 1, float32 resolves 6e-8

Norm = Literal["Linf", "L2"]
Target = Literal["final", "any-step", "exit"]
Aim = Target | Literal["looks"]
Path = Literal["free", "frozen", "detached"]
Quarter = Literal["any", "top-left", "top-right", "bottom-left", "bottom-right"]
Draws = Literal["corners", "uniform", "gaussian"]


def _number(value: Any) -> Any:
    """Convert text such as '8/255' to a number; pydantic handles anything else."""
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError("expected a number or a fraction such as 8/255") from None


def in_255ths(value: float) -> str:
    """The end of an error message about a length that looks like a number of 8-bit levels; '' for other lengths.

    >>> in_255ths(8.0), in_255ths(0.3)
    (': did you mean 8/255?', '')
    """
    return f": did you mean {value:g}/255?" if 1 <= value <= 255 else ""


Length = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]


class AttackSettings(Settings):
    """The settings that every attack has. The lengths eps and step_size are in pixel values in [0, 1]."""

    space: ClassVar[str] = "pixels"
    """The unit of lengths: 'pixels' (values in [0, 1]), or 'normalised' (values after the model's normalisation)."""

    norm: Norm = "Linf"
    """The norm that measures the change of an image."""
    eps: Length = LINF_EPS
    """The largest change allowed; by default 8/255 in Linf and 0.5 in L2."""
    steps: int = Field(10, ge=1)
    """The number of iterations (of queries, for a black-box attack)."""
    step_size: Length | None = None
    """The length of one iteration's step; by default 2.5 eps / steps (Madry et al., 2018)."""
    restarts: int = Field(1, ge=1)
    """Runs from different random starts, of which the best counts."""
    eot: int = Field(1, ge=1)
    """Runs of a stochastic model, each with other noise, over which a gradient or a loss is averaged."""
    evaluations: int | None = Field(None, ge=1)
    """How often success is measured, each time with other noise of the model. It does not change the attack. By default 5 times for a
    stochastic model and once for any other."""
    target: Target = "final"
    """The prediction to make wrong: that of the last step, of any step, or at the exit (which needs an exit rule)."""
    path: Path = "free"
    """How the glimpses are treated: the attacked run chooses its own (free); it repeats those of the clean run (frozen); or it chooses its
    own, but the attack's gradient takes them as given (detached)."""
    images: int | None = Field(None, ge=1)
    """How many of the images that the run has for attacks are attacked; none means all."""
    seed: int = Field(0, ge=0, lt=2**32)
    """The seed of everything random."""

    @model_validator(mode="before")
    @classmethod
    def _eps_of_the_norm(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("norm", cls.model_fields["norm"].default) == "L2":
            return {"eps": L2_EPS, **values}
        return values

    @model_validator(mode="after")
    def _lengths_fit(self) -> "AttackSettings":
        """In Linf, eps is at most the range of a pixel. In L2 the limit depends on the image size, so `Attack.check` checks it."""
        if self.eps < LEAST_EPS:
            raise ValueError(f"expected eps of at least {LEAST_EPS:g}, got {self.eps:g}: less is lost in the rounding of float32")
        if self.norm == "Linf" and self.eps > 1:
            raise ValueError(f"expected eps of at most 1 in Linf, because values lie in [0, 1], got {self.eps:g}{in_255ths(self.eps)}")
        if self.step_size is not None and "step_size" in self.model_fields_set and self.step_size > 2 * self.eps:
            raise ValueError(
                f"expected a step_size of at most 2 eps ({2 * self.eps:.3g}), which crosses the whole budget, got {self.step_size:g}"
                f"{in_255ths(self.step_size)}"
            )
        return self

    @property
    def step(self) -> float:
        """The step size in effect."""
        return 2.5 * self.eps / self.steps if self.step_size is None else self.step_size


class FGSMSettings(AttackSettings):
    """One step of length eps from the image itself."""

    steps: Literal[1] = 1
    restarts: Literal[1] = 1
    step_size: None = None

    @property
    def step(self) -> float:
        return self.eps


class PGDSettings(AttackSettings):
    """Projected gradient descent."""

    random_start: bool = True
    """Begin at a random point within eps instead of at the image; without it, restarts would repeat each other."""

    @model_validator(mode="after")
    def _restarts_differ(self) -> "PGDSettings":
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"expected restarts=1 without a random start (they would be the same), got {self.restarts}")
        return self


class APGDSettings(AttackSettings):
    """APGD adapts its step size, which begins at 2 eps."""

    steps: int = Field(100, ge=1)
    step_size: None = None

    @property
    def step(self) -> float:
        return 2 * self.eps


class SquareSettings(AttackSettings):
    """Square, a black-box attack by random search."""

    steps: int = Field(1000, ge=1)
    """The number of queries of the model."""
    step_size: None = None
    p_init: float = Field(0.8, gt=0, le=1)
    """The share of the pixels that the first squares cover."""
    rescale: bool = True
    """Shrink the squares over these queries as the paper does over 10,000; otherwise on the paper's schedule, cut off at `steps`."""

    @property
    def step(self) -> float:
        """A square lies at the edge of the budget, so it changes a pixel by at most 2 eps."""
        return 2 * self.eps


class WorstCaseSettings(APGDSettings):
    """The worst case over an ensemble, in rounds: each has twice the iterations of the one before, and other random starts."""

    steps: int = Field(32, ge=1)
    """The iterations of each attack in the first round, and the queries of Square."""
    rounds: int = Field(4, ge=1, le=10)
    """The most rounds. From the second on, the attack ends with the round that shows that it has converged."""
    restarts: Literal[1] = 1
    images: int | None = Field(64, ge=1)


class AutoAttackSettings(AttackSettings):
    """AutoAttack fixes everything except the norm and eps: 100 steps of each gradient attack, 5,000 queries of Square."""

    steps: Literal[100] = 100
    restarts: Literal[1] = 1
    eot: Literal[1] = 1
    step_size: None = None

    @property
    def step(self) -> float:
        """The first step size of APGD."""
        return 2 * self.eps


class RandomisedAutoAttackSettings(AutoAttackSettings):
    """AutoAttack for stochastic models: gradients are averaged over 20 runs."""

    eot: Literal[20] = 20  # type: ignore[assignment]


class RandomSettings(AttackSettings):
    """The worst of several random changes, which a real attack must exceed."""

    steps: int = Field(10, ge=1)
    """The number of draws, of which the worst per image counts."""
    step_size: None = None
    restarts: Literal[1] = 1
    path: Literal["free", "frozen"] = "free"
    """Whether the attacked run chooses its own glimpses (free) or repeats those of the clean run (frozen)."""
    draws: Draws | Literal["mixed"] = "mixed"
    """At the edge of the budget (corners), anywhere within it (uniform), Gaussian, or the three in turn (mixed)."""

    @property
    def step(self) -> float:
        """A draw changes an image by at most eps."""
        return self.eps


class ExitAimedSettings(PGDSettings):
    """PGD aimed at the early exit, so its target is always the exit."""

    steps: int = Field(20, ge=1)
    target: Literal["exit"] = "exit"


class LooksSettings(PGDSettings):
    """PGD aimed at where the model looks, so the gradient passes through its choices."""

    steps: int = Field(20, ge=1)
    target: Literal["looks"] = "looks"  # type: ignore[assignment]
    path: Literal["free"] = "free"


class TunnelSettings(LooksSettings):
    """PGD that pulls the glimpses into one quarter of the image."""

    quarter: Quarter = "any"
    """Where to; `any` tries all four, which takes four times as long, and keeps the best of an image."""


class SparseSettings(AttackSettings):
    """Sparse-RS, a black-box attack by random search. Its budget is a number of pixels."""

    norm: Literal["L0"] = "L0"  # type: ignore[assignment]
    eps: int = Field(24, ge=1)
    """The most pixels that change, each in all channels and by any amount."""
    steps: int = Field(300, ge=1)
    """The number of queries of the model."""
    step_size: None = None
    path: Literal["free", "frozen"] = "free"
    """Whether the attacked run chooses its own glimpses (free) or repeats those of the clean run (frozen)."""

    @property
    def step(self) -> float:
        """A pixel may change by the whole range."""
        return 1.0


class PatchSettings(AttackSettings):
    """PGD within a square. Its budget is a share of the area."""

    norm: Literal["patch"] = "patch"  # type: ignore[assignment]
    eps: float = Field(0.02, gt=0, le=0.5)
    """The share of the area that the square covers; by default that of LaVAN."""
    steps: int = Field(20, ge=1)
    """The number of iterations at each place."""
    step_size: None = None
    restarts: int = Field(4, ge=1)
    """The number of places that are tried."""

    @property
    def step(self) -> float:
        """As PGD's, within the whole range of a pixel; at most all of it."""
        return min(1.0, 2.5 / self.steps)


class PaperPGDSettings(AttackSettings):
    """The MGNet paper's PGD: eps 4/255 and steps of 1/255, in units of normalised pixels."""

    space: ClassVar[str] = "normalised"

    norm: Literal["Linf"] = "Linf"
    eps: Length = 4 / 255
    steps: int = Field(4, ge=1)
    step_size: Length | None = 1 / 255
    restarts: Literal[1] = 1
