"""The settings of a timm model: what `--set key=value` reaches."""

from pydantic import Field

from glimpsezoo import Settings


class TimmConfig(Settings):
    """Settings of `timm:ARCHITECTURE`.

    architecture: timm's name of the model, with a pretrained tag if you like (`resnet18.a1_in1k`). image_size: side in pixels of the
    square that images are resized to inside the model; by default the data's own size. maxpool: false takes the pooling out of a
    ResNet's stem, for small images. patch_size: side in pixels of a transformer's or mixer's patches; by default the architecture's.
    """

    architecture: str = Field(min_length=1)
    image_size: int | None = Field(None, ge=1, le=4096)
    maxpool: bool = True
    patch_size: int | None = Field(None, ge=1, le=256)
