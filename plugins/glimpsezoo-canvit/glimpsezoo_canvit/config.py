"""The settings of this plugin's model, which `--set KEY=VALUE` reaches. The defaults are those of the authors' CanViT-B."""

from typing import Literal

from pydantic import Field, field_validator

from glimpsezoo import PolicyName, Settings


class CanViTConfig(Settings):
    """Settings of CanViT. Those of the network have the names of the authors' `CanViTConfig`, without 'canvas' and 'num' where clear."""

    backbone: Literal["vitb16", "vits16", "tiny"] = "vitb16"
    """The ViT that takes the glimpses: the authors' ViT-B or ViT-S, or one of two blocks of 32 units, for tests. Its patches have 16 px."""
    glimpse: int = Field(128, ge=16, multiple_of=16)
    """The side in px of a glimpse, however large its region is."""
    glimpses: int = Field(21, ge=1, le=100)
    """T, the number of glimpses. The policies coarse-to-fine and fine-to-coarse take 1 + 4 + 16."""
    canvas: int = Field(32, ge=1)
    """The side of the canvas in cells."""
    canvas_heads: int = Field(8, ge=1)
    """The heads of the attention between glimpse and canvas."""
    canvas_head_dim: int = Field(128, ge=4, multiple_of=4)
    """The units of a head, so that a cell has heads x units."""
    canvas_registers: int = Field(16, ge=0)
    """The cells of the canvas without a place."""
    registers: int = Field(5, ge=0)
    """The tokens of the ViT without a place, beside that of the class and that of the viewpoint."""
    stride: int = Field(2, ge=1)
    """After every so many blocks, the tokens read from the canvas or write to it, in turn."""
    reads: bool = True
    """Whether they read at all."""
    viewpoint: bool = True
    """Whether a token says where the glimpse lies and how large it is."""
    projections: Literal["asymmetric", "qkvo"] = "asymmetric"
    """Whether the attention projects the tokens only, or the canvas, too."""
    policy: PolicyName = "coarse-to-fine"
    """What chooses where to look, from the first glimpse on (`glimpsezoo list policies`). CanViT has no policy of its own."""
    revision: str | None = Field(None, min_length=1)
    """The branch, tag or commit of the authors' repository whose weights are taken; None is the commit that the card names."""

    @field_validator("policy")
    @classmethod
    def _is_not_its_own(cls, policy: str) -> str:
        if policy == "learned":
            raise ValueError("expected a policy, because CanViT has none of its own, got 'learned': try coarse-to-fine")
        return policy
