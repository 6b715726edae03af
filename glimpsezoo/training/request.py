"""What a user asks to be trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """The arguments and options of `glimpsezoo train`."""

    model: str
    """MODEL, or the full name of a recipe, MODEL.DATA[.VARIANT], which must agree with `data`."""
    data: str | None
    """Name of the data set; None takes the one that a recipe's name or the starting card tells, or the digits."""
    device: "torch.device"
    data_dir: str | None = None
    sets: tuple[str, ...] = ()
    """`--set` texts."""
    recipe_file: str | None = None
    """A TOML file, or the name of another recipe of the model; None takes the recipe MODEL.DATA[.VARIANT], or makes one for the data."""
    epochs: int | None = None
    """Length of the whole training: see `Recipe.scaled`."""
    lr: float | None = None
    """Largest learning rate of the whole training: see `Recipe.scaled`."""
    batch_size: int | None = None
    seed: int | None = None
    """Replaces the seed of the recipe."""
    one_of_seeds: bool = False
    """Whether this is one of the trainings of `--seeds`: the folder is named by the seed, and a finished card there is kept."""
    workers: int = 0
    output: Path | None = None
    force: bool = False
    fresh: bool = False
    loggers: tuple[str, ...] = ()
    """What else is told of every epoch."""
    dry_run: bool = False
    """Whether the training is only planned: nothing is trained, written or deleted."""
