"""The settings of this plugin's models: what `--set key=value` reaches."""

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from glimpsezoo import Settings


def _fraction(value: Any) -> Any:
    """Text such as '7/3' as a number; anything else is left to pydantic."""
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError("expected a number or a fraction such as 7/3") from None


class MGNetConfig(Settings):
    """Settings of MGNet; the symbols are the paper's.

    backbone: any timm model by name, or 'cnn4', the small CNN of appendix B. maxpool: false takes the pooling out of a ResNet's stem
    (table 3, for images of 64 px). glimpses: T. downsample: M, as a number or a fraction ('7/3'). scale: the smallest and the largest
    side of a glimpse-region as a share of the image's side (a_min, a_max of equation 4). gradient_scale: s of equation 5; by default
    the paper's: 0.02 for resnet18, 0.01 otherwise. alpha: weight of the glimpse classifier's loss (equation 6); at 0 there is no such
    classifier. size_penalty: weight of ||a^s - a_min|| (appendix B). biases: the equations print none; the authors' code has them in
    every linear layer. policy: where to look, learned or trivial.
    """

    backbone: str = Field("resnet18", min_length=1)
    maxpool: bool = True
    glimpses: int = Field(4, ge=1, le=100)
    downsample: Annotated[float, BeforeValidator(_fraction), Field(ge=1, allow_inf_nan=False)] = 7 / 3
    scale: tuple[float, float] = (0.2, 0.5)
    gradient_scale: float = Field(0.01, gt=0, le=1)
    alpha: float = Field(0.6, ge=0, le=1)
    size_penalty: float = Field(0.0, ge=0, allow_inf_nan=False)
    biases: bool = False
    policy: Literal["learned", "random", "centre", "scan"] = "learned"

    @model_validator(mode="before")
    @classmethod
    def _gradient_scale_of_the_backbone(cls, values: Any) -> Any:
        """Section 4.1: s is 0.02 for ResNet-18 and 0.01 otherwise."""
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
    """Settings of the plain small CNN: it has none."""
