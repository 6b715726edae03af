"""The settings of this plugin's models: what `--set key=value` reaches. The defaults are the paper's for jittered MNIST."""

from typing import Literal, Self

from pydantic import Field, model_validator

from glimpsezoo import Settings


class RanzatoConfig(Settings):
    """Settings of the glimpse model. Every row of the paper's tables 1 to 3 is a value of these.

    glimpses: how many (the run has one step more: the low-resolution look). low_size: side in px of the down-sampled image.
    patch: side in px of what a glimpse network takes, at each scale. scales: 1 is the patch at full resolution; each further one
    looks at twice the side, down-sampled to the same px. hidden: units of every hidden layer.
    parallel: every location is predicted from N0 alone (table 2). shared: one glimpse network for all glimpses (table 2); their
    location predictors stay their own. policy: where to look, learned or trivial.

    Training only. location_weight: lambda of equation 9. contrast_weight: of the term at the most offending location (equation 16),
    0 without it. diversity_weight, diversity_variance: gamma and sigma^2 of equation 18, for locations in [0, 1]; weight 0 without it.
    search_pixels: spacing of the 3 x 3 grid that is searched around a prediction.
    """

    glimpses: int = Field(2, ge=1, le=100)
    low_size: int = Field(12, ge=1)
    patch: int = Field(12, ge=1)
    scales: int = Field(2, ge=1, le=4)
    hidden: int = Field(500, ge=1)
    parallel: bool = False
    shared: bool = False
    policy: Literal["learned", "random", "centre", "scan"] = "learned"
    location_weight: float = Field(100.0, ge=0, allow_inf_nan=False)
    contrast_weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    diversity_weight: float = Field(0.01, ge=0, allow_inf_nan=False)
    diversity_variance: float = Field(0.002, gt=0, allow_inf_nan=False)
    search_pixels: float = Field(2.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _scales_are_concentric(self) -> Self:
        if self.scales > 1 and self.patch % 2:
            raise ValueError(f"expected an even patch for more than one scale (they share a centre), got {self.patch}")
        return self


class FullyConnectedConfig(Settings):
    """Settings of the fully connected baseline.

    hidden: units of its layer. low_size: side in px of the down-sampled image it takes; None takes the whole image.
    """

    hidden: int = Field(500, ge=1)
    low_size: int | None = Field(None, ge=1)


class ConvolutionalConfig(Settings):
    """Settings of the convolutional baseline. filters: of both convolutions. hidden: units of the fully connected layer."""

    filters: int = Field(64, ge=1)
    hidden: int = Field(128, ge=1)
