"""The settings of this plugin's model, which `--set KEY=VALUE` reaches. The defaults are the authors' for DeiT-S."""

from typing import Literal, Self

from pydantic import Field, model_validator

from glimpsezoo import PolicyName, Settings


class AdaptiveNNConfig(Settings):
    """Settings of AdaptiveNN."""

    glimpses: int = Field(4, ge=1, le=100)
    """The number of fixations after the glance, so that there is one step more."""
    patch: int = Field(112, ge=1)
    """The side in px of what an encoder takes, a multiple of `token`: of the resized image, and of a crop, which has this width in the
    image."""
    token: int = Field(16, ge=1)
    """The side in px of the square that becomes a token. The state map has a cell for each token of the resized image."""
    width: int = Field(384, ge=1)
    """The units of a token, and of a cell of the state map. It must be a multiple of `attention_heads`."""
    depth: int = Field(12, ge=2)
    """The transformer blocks of an encoder."""
    head_depth: int = Field(4, ge=1)
    """The transformer blocks of each step's classifier. Those of the glance are the last ones of its encoder."""
    attention_heads: int = Field(8, ge=1)
    """The heads of every attention."""
    window: int = Field(5, ge=1)
    """The side in cells of the square of the state map that a token of a crop writes to."""
    locator_channels: int = Field(128, ge=1)
    """The channels of the policy and of the value network."""
    locator_hidden: int = Field(1024, ge=2)
    """The units of their first fully connected layer; the second has half as many."""
    drop_path: float = Field(0.1, ge=0, lt=1)
    """In training: how often the last blocks are skipped. It rises linearly with the depth of an encoder."""
    policy: PolicyName = "learned"
    """What chooses where to look: learned, or any other policy (`glimpsezoo list policies`) for crops of one size."""
    decide: Literal["mode", "sample"] = "mode"
    """Whether the learned policy looks at the mean that it predicts (mode, as in the authors' tests) or draws a place around it."""
    deviation: float = Field(0.1, gt=0, le=1)
    """The standard deviation of a drawn place, as a share of the range of places."""
    exits: tuple[float, ...] = ()
    """An image is finished after step t if looking on is expected to lower its loss by no more than the t-th number, in nats. By default,
    no image exits early in this way. Only the learned policy does it."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.patch % self.token:
            raise ValueError(f"expected a patch that is a multiple of token={self.token}, got {self.patch}")
        if self.width % self.attention_heads:
            raise ValueError(f"expected a width that is a multiple of attention_heads={self.attention_heads}, got {self.width}")
        if self.head_depth >= self.depth:
            raise ValueError(f"expected a head_depth below depth={self.depth}, got {self.head_depth}")
        if len(self.exits) > self.glimpses:
            raise ValueError(f"expected exits after at most {self.glimpses} steps (glimpses={self.glimpses}), got {len(self.exits)}")
        return self
