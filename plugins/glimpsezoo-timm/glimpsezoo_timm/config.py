"""The settings of a timm model, which `--set KEY=VALUE` reaches."""

from pydantic import Field

from glimpsezoo import Settings


class TimmConfig(Settings):
    """Settings of `timm:ARCHITECTURE`."""

    architecture: str = Field(min_length=1)
    """timm's name of the model, optionally with a pretrained tag (`resnet18.a1_in1k`)."""
    image_size: int | None = Field(None, ge=1, le=4096)
    """The side in pixels of the square to which the model resizes images; by default the data's own size."""
    maxpool: bool = True
    """Whether a ResNet's stem has its max pooling; leave it out for small images."""
    patch_size: int | None = Field(None, ge=1, le=256)
    """The side in pixels of the patches of a transformer or mixer; by default the architecture's."""
