"""The settings of attacks, each attack's with its own defaults. Imports no torch."""

from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from glimpsezoo.settings import Settings

LINF_EPS, L2_EPS = 8 / 255, 0.5  # the budgets usual for images in [0, 1] (RobustBench has 8/255 and 0.5 for small images)

LEAST_EPS = 1e-6  # near 1, float32 has 1.7e7 values a unit

Norm = Literal["Linf", "L2"]
Target = Literal["final", "any-step", "exit"]
Path = Literal["free", "frozen"]


def _number(value: Any) -> Any:
    """Text such as '8/255' as a number; anything else is left to pydantic."""
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError("expected a number or a fraction such as 8/255") from None


def in_255ths(value: float) -> str:
    """The end of an error about a length that looks like one in levels of 8 bits; '' of any other.

    >>> in_255ths(8.0), in_255ths(0.3)
    (': did you mean 8/255?', '')
    """
    return f": did you mean {value:g}/255?" if 1 <= value <= 255 else ""


Length = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]


class AttackSettings(Settings):
    """What every attack has. Lengths (eps, step_size) are in `space`: 'pixels' means those in [0, 1].

    norm: how the change of an image is measured. eps: the most that it may be; by default 8/255 in Linf and 0.5 in L2. steps:
    iterations (queries, for a black box). step_size: of one iteration; by default 2.5 eps / steps (Madry et al., 2018). restarts: runs
    from different random starts, of which the best counts. eot: runs of a stochastic model, each with other noise, that a gradient or a
    loss is the mean of. evaluations: how often success is measured, each time with other noise of the model; it changes nothing in the
    attack; by default 5 times for a stochastic model, once for any other. target: the prediction to make wrong: the last one, that of any
    step, or the one at the exit (which needs an exit rule). path: whether the attacked run chooses its looks, or keeps those of the clean
    run. seed: of all that is random.
    """

    space: ClassVar[str] = "pixels"

    norm: Norm = "Linf"
    eps: Length = LINF_EPS
    steps: int = Field(10, ge=1)
    step_size: Length | None = None
    restarts: int = Field(1, ge=1)
    eot: int = Field(1, ge=1)
    evaluations: int | None = Field(None, ge=1)
    target: Target = "final"
    path: Path = "free"
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="before")
    @classmethod
    def _eps_of_the_norm(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("norm", cls.model_fields["norm"].default) == "L2":
            return {"eps": L2_EPS, **values}
        return values

    @model_validator(mode="after")
    def _lengths_fit(self) -> "AttackSettings":
        """In Linf, eps is at most the range of a pixel; for L2, `Attack.check` knows the size of the images."""
        if self.eps < LEAST_EPS:
            raise ValueError(f"expected eps of at least {LEAST_EPS:g}, got {self.eps:g}: less is lost in the rounding of float32")
        if self.norm == "Linf" and self.eps > 1:
            raise ValueError(f"expected eps of at most 1 in Linf, for values lie in [0, 1], got {self.eps:g}{in_255ths(self.eps)}")
        if self.step_size is not None and "step_size" in self.model_fields_set and self.step_size > 2 * self.eps:
            raise ValueError(
                f"expected a step_size of at most 2 eps ({2 * self.eps:.3g}), which crosses the whole budget, got {self.step_size:g}"
                f"{in_255ths(self.step_size)}"
            )
        return self

    @property
    def step(self) -> float:
        """The step size that applies."""
        return 2.5 * self.eps / self.steps if self.step_size is None else self.step_size


class FGSMSettings(AttackSettings):
    """One step as long as eps, from the image itself."""

    steps: Literal[1] = 1
    restarts: Literal[1] = 1
    step_size: None = None

    @property
    def step(self) -> float:
        return self.eps


class PGDSettings(AttackSettings):
    """random_start: begin anywhere within eps, not at the image; without it, restarts would repeat each other."""

    random_start: bool = True

    @model_validator(mode="after")
    def _restarts_differ(self) -> "PGDSettings":
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"expected restarts=1 without a random start (they would be the same), got {self.restarts}")
        return self


class APGDSettings(AttackSettings):
    """APGD sets its own step size: at first 2 eps."""

    steps: int = Field(100, ge=1)
    step_size: None = None

    @property
    def step(self) -> float:
        return 2 * self.eps


class SquareSettings(AttackSettings):
    """steps: queries of the model. p_init: share of the pixels that the first squares cover. rescale: let the squares shrink over these
    queries as they do over 10,000 in the paper; without it they shrink as in its first ones.
    """

    steps: int = Field(1000, ge=1)
    step_size: None = None
    p_init: float = Field(0.8, gt=0, le=1)
    rescale: bool = True

    @property
    def step(self) -> float:
        """A square is put at the budget's edge: 2 eps is the most that it moves a pixel."""
        return 2 * self.eps


class AutoAttackSettings(AttackSettings):
    """AutoAttack fixes everything but the norm and eps: 100 steps of each gradient attack, 5,000 queries of Square."""

    steps: Literal[100] = 100
    restarts: Literal[1] = 1
    eot: Literal[1] = 1
    step_size: None = None

    @property
    def step(self) -> float:
        """The first step of APGD."""
        return 2 * self.eps


class RandomisedAutoAttackSettings(AutoAttackSettings):
    """The version for stochastic models: gradients are means over 20 runs."""

    eot: Literal[20] = 20  # type: ignore[assignment]


class SlowdownSettings(PGDSettings):
    """Delays the exit, so the exit is what it aims at."""

    steps: int = Field(20, ge=1)
    target: Literal["exit"] = "exit"


class PaperPGDSettings(AttackSettings):
    """The MGNet paper's PGD: eps 4/255 and steps of 1/255, in units of normalised pixels."""

    space: ClassVar[str] = "normalised"

    norm: Literal["Linf"] = "Linf"
    eps: Length = 4 / 255
    steps: int = Field(4, ge=1)
    step_size: Length | None = 1 / 255
    restarts: Literal[1] = 1


class MaskingSettings(Settings):
    """How the masking verdict is reached. steps: of the white-box attack at each eps. queries: of the black-box attack.

    strong_steps: of the white-box attack that the reported one, which may be a long one, is held against. eot: runs that a gradient of a
    stochastic model is the mean of. seed: of all that is random.
    """

    steps: int = Field(20, ge=1)
    queries: int = Field(200, ge=1)
    strong_steps: int = Field(100, ge=1)
    eot: int = Field(2, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)
