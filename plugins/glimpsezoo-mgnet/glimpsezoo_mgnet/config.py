"""The settings of this plugin's models, which `--set KEY=VALUE` reaches."""

from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from glimpsezoo import PolicyName, Settings


def _fraction(value: Any) -> Any:
    """Convert text such as '7/3' to a number; pydantic handles anything else."""
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError("expected a number or a fraction such as 7/3") from None


class MGNetConfig(Settings):
    """Settings of MGNet. The symbols are the paper's."""

    backbone: str = Field("resnet18", min_length=1)
    """A timm model by name, or 'cnn4', the small CNN of appendix B."""
    maxpool: bool = True
    """Whether a ResNet's stem has its max pooling; table 3 leaves it out for images of 64 px."""
    glimpses: int = Field(4, ge=1, le=100)
    """T, the number of glimpses."""
    downsample: Annotated[float, BeforeValidator(_fraction), Field(ge=1, allow_inf_nan=False)] = 7 / 3
    """M, the factor by which a glimpse is smaller than the image, as a number or a fraction ('7/3')."""
    scale: tuple[float, float] = (0.2, 0.5)
    """The smallest and the largest side of a glimpse region as a share of the image's side (a_min and a_max of equation 4)."""
    gradient_scale: float = Field(0.01, gt=0, le=1)
    """s of equation 5; by default the paper's: 0.02 for resnet18, 0.01 otherwise."""
    alpha: float = Field(0.6, ge=0, le=1)
    """The weight of the glimpse classifier's loss (equation 6). At 0 the model has no such classifier."""
    size_penalty: float = Field(0.0, ge=0, allow_inf_nan=False)
    """The weight of ||a^s - a_min|| (appendix B)."""
    biases: bool = False
    """Whether linear layers have biases. The paper's equations have none; the authors' code has them in every linear layer."""
    policy: PolicyName = "learned"
    """What chooses where to look: learned, or any other policy (`glimpsezoo list policies`)."""

    @model_validator(mode="before")
    @classmethod
    def _gradient_scale_of_the_backbone(cls, values: Any) -> Any:
        """Section 4.1: s is 0.02 for ResNet-18 and 0.01 for other backbones."""
        if isinstance(values, dict) and values.get("backbone", "resnet18") == "resnet18":
            return {"gradient_scale": 0.02, **values}
        return values

    @field_validator("scale")
    @classmethod
    def _scale_is_a_range(cls, scale: tuple[float, float]) -> tuple[float, float]:
        low, high = scale
        if not 0 < low <= high <= 1:
            raise ValueError("expected two numbers 0 < a_min <= a_max <= 1")
        return scale


class CNN4Config(Settings):
    """The plain small CNN has no settings."""
