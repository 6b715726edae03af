"""The settings of this plugin's models, which `--set KEY=VALUE` reaches. The defaults are the paper's for MNIST."""

from typing import Literal, Self

from pydantic import Field, model_validator

from glimpsezoo import PolicyName, Settings

Decide = Literal["sample", "mode"]
Bound = Literal["clamp", "tanh"]


class RamConfig(Settings):
    """Settings of RAM."""

    glimpses: int = Field(7, ge=1, le=100)
    """The number of glimpses, one per step."""
    patch: int = Field(8, ge=1)
    """The side in px of a patch, at each scale (g)."""
    scales: int = Field(1, ge=1, le=4)
    """The number of patches of a glimpse (k); each covers twice the side of the one before, averaged to the same px."""
    deviation: float = Field(0.17, gt=0, le=1)
    """The standard deviation of the places that the policy draws, in [-1, 1] of the image."""
    locator_hidden: int = Field(128, ge=0)
    """The units of the locator's hidden layer; 0 is a linear locator, as in the paper."""
    bound: Bound = "clamp"
    """How a draw is brought to [-1, 1]; tanh is for weights of others that were trained so."""
    decide: Decide = "sample"
    """How places are chosen in testing: sample draws them, as the paper does; mode takes the mean of every distribution."""
    evaluations: int = Field(1, ge=1, le=100)
    """Runs per image in testing (M); their log-probabilities are averaged, and each run is paid for."""
    policy: PolicyName = "learned"
    """What chooses where to look: learned, or any other policy (`glimpsezoo list policies`) for regions of one size."""

    @model_validator(mode="after")
    def _scales_are_concentric(self) -> Self:
        if self.scales > 1 and self.patch % 2:
            raise ValueError(f"expected an even patch for more than one scale (they share a centre), got {self.patch}")
        return self


class DramConfig(Settings):
    """Settings of DRAM."""

    glimpses: int = Field(6, ge=1, le=100)
    """The number of glimpses, one per step."""
    patch: int = Field(12, ge=9)
    """The side in px of a patch, at each scale."""
    scales: int = Field(2, ge=1, le=4)
    """The number of patches of a glimpse; each covers twice the side of the one before, averaged to the same px."""
    coarse: int = Field(20, ge=12)
    """The side in px of the down-sampled image that the context network sees."""
    filters: int = Field(16, ge=1)
    """The filters of the first two convolutions of the glimpse and the context network; the third has twice as many."""
    width: int = Field(256, ge=1)
    """The units of a glimpse vector, of each LSTM, and of the classifier's hidden layer."""
    deviation: float = Field(0.15, gt=0, le=1)
    """The standard deviation of the places that the policy draws, in [-1, 1] of the image; it may choose half to twice of it."""
    decide: Decide = "sample"
    """How places are chosen in testing: sample draws them, as the paper does; mode takes the mean of every distribution."""
    evaluations: int = Field(1, ge=1, le=100)
    """Runs per image in testing; their log-probabilities are averaged, and each run is paid for."""
    policy: PolicyName = "learned"
    """What chooses where to look: learned, or any other policy (`glimpsezoo list policies`) for regions of one size."""

    @model_validator(mode="after")
    def _scales_are_concentric(self) -> Self:
        if self.scales > 1 and self.patch % 2:
            raise ValueError(f"expected an even patch for more than one scale (they share a centre), got {self.patch}")
        return self


class PolicyTraining(Settings):
    """Options of a training phase of RAM or DRAM."""

    samples: int = Field(1, ge=1)
    """Monte Carlo samples per image (M)."""
    reinforce_weight: float = Field(0.01, ge=0)
    """The weight of the REINFORCE term. In RAM it trains the locator alone, so it only matters to how that is optimised."""
    entropy_weight: float = Field(0.0, ge=0)
    """The weight of the entropy of the policy, which is rewarded. RAM's is constant, so it has no effect there."""


class FullyConnectedConfig(Settings):
    """Settings of the fully connected baseline."""

    hidden: int = Field(256, ge=1)
    """The units of each of its two hidden layers."""


class ConvolutionalConfig(Settings):
    """Settings of the convolutional baseline."""

    filters: int = Field(16, ge=1)
    """The filters of the convolution."""
    hidden: int = Field(256, ge=1)
    """The units of the fully connected layer."""
