"""The settings of this plugin's models, which `--set KEY=VALUE` reaches. The defaults are the paper's for jittered MNIST."""

from typing import Self

from pydantic import Field, model_validator

from glimpsezoo import PolicyName, Settings


class RanzatoConfig(Settings):
    """Settings of the glimpse model. They cover every row of the paper's tables 1 to 3."""

    glimpses: int = Field(2, ge=1, le=100)
    """The number of glimpses. A run has one step more, the low-resolution one."""
    low_size: int = Field(12, ge=1)
    """The side in px of the down-sampled image."""
    patch: int = Field(12, ge=1)
    """The side in px of what a glimpse network takes, at each scale."""
    scales: int = Field(2, ge=1, le=4)
    """The number of scales of a glimpse: 1 is the patch at full resolution; each further scale covers twice the side, down-sampled to the
    same px."""
    hidden: int = Field(500, ge=1)
    """The units of every hidden layer."""
    parallel: bool = False
    """Whether every location is predicted from N0 alone (table 2)."""
    shared: bool = False
    """Whether all glimpses share one glimpse network (table 2); each has its own location predictor in any case."""
    policy: PolicyName = "learned"
    """What chooses where to look: learned, or any other policy (`glimpsezoo list policies`) for regions of one size."""
    location_weight: float = Field(100.0, ge=0, allow_inf_nan=False)
    """In training: lambda of equation 9."""
    contrast_weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """In training: the weight of the term at the most offending location (equation 16); 0 leaves it out."""
    diversity_weight: float = Field(0.01, ge=0, allow_inf_nan=False)
    """In training: gamma of equation 18; 0 leaves the term out."""
    diversity_variance: float = Field(0.002, gt=0, allow_inf_nan=False)
    """In training: sigma^2 of equation 18, for locations in [0, 1]."""
    search_pixels: float = Field(2.0, gt=0, allow_inf_nan=False)
    """In training: the spacing in px of the 3 x 3 grid that is searched around a predicted location."""

    @model_validator(mode="after")
    def _scales_are_concentric(self) -> Self:
        if self.scales > 1 and self.patch % 2:
            raise ValueError(f"expected an even patch for more than one scale (they share a centre), got {self.patch}")
        return self


class FullyConnectedConfig(Settings):
    """Settings of the fully connected baseline."""

    hidden: int = Field(500, ge=1)
    """The units of its hidden layer."""
    low_size: int | None = Field(None, ge=1)
    """The side in px of the down-sampled image that it takes. None: the whole image."""


class ConvolutionalConfig(Settings):
    """Settings of the convolutional baseline."""

    filters: int = Field(64, ge=1)
    """The filters of each of the two convolutions."""
    hidden: int = Field(128, ge=1)
    """The units of the fully connected layer."""
