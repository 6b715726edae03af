"""What `--set data.KEY=value` reaches. Torch-free: a command line is checked before anything heavy is loaded."""

from pydantic import Field

from glimpsezoo.settings import Settings


class PlacedSettings(Settings):
    """Digits placed on a canvas."""

    seed: int = Field(0, description="seed of placements, noise and textures")
