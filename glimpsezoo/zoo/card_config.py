"""What config.json says of a card: model, task, data, weights, how it was trained. Cards come from anybody, so it is checked."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.files import LONGEST, file_name
from glimpsezoo.schema import Version
from glimpsezoo.specs import Task

CONFIG, WEIGHTS = "config.json", "model.safetensors"
UNKNOWN = "unknown"  # data or license that a card does not name


def _one_name(text: str) -> str:
    """Accept only a name that fits in one line and can name a folder, because a card may come from anybody."""
    if not text.isprintable() or file_name(text) in {"", ".", ".."} or "\\" in text:
        raise ValueError("expected a printable name")
    if len(text.encode()) > LONGEST:
        raise ValueError(f"expected a name of at most {LONGEST} bytes, got {len(text.encode())}")
    return text


def card_name(folder: Path) -> str:
    """The name of a folder as that of a card in it. Raises `GlimpseZooError` if it cannot be one."""
    try:
        return _one_name(folder.resolve().name)
    except ValueError as error:
        why = f"{error} of a card, not {folder.resolve().name!r}"
        raise GlimpseZooError(f"{why}: give its folder, or the file of its weights, another one") from None


Name = Annotated[str, AfterValidator(_one_name)]


class _CardPart(BaseModel):
    """Base of the parts of config.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Weights(_CardPart):
    """The file with the weights."""

    file: str = Field(default=WEIGHTS, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\.safetensors$")
    """Name of the file in the folder of the card, or in its repository."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the file."""
    bytes: int = Field(ge=0)
    """Size of the file in bytes."""


class CardTask(_CardPart):
    """The `Task` of a card."""

    image_size: tuple[int, int]
    """(height, width) in pixels."""
    channels: int
    """1 for grey, 3 for colour."""
    classes: tuple[str, ...]
    """Names of the classes in label order."""
    mean: tuple[FiniteFloat, ...]
    """Mean of each channel, of pixels in [0, 1]."""
    std: tuple[FiniteFloat, ...]
    """Standard deviation of each channel."""

    def task(self) -> Task:
        return Task(**self.model_dump())


class CardData(_CardPart):
    """The data set that a card was trained on."""

    name: Name
    """Name of the data set, or 'unknown'."""
    settings: dict[str, Any] = {}
    """What was given as `--set data.KEY`."""


class PublishedExits(_CardPart):
    """Early exits at one budget, as the authors report them."""

    thresholds: tuple[FiniteFloat, ...]
    """Of each step, in the unit of their exit rule."""
    top1: float = Field(ge=0, le=1)
    """Top-1 accuracy."""
    macs: float = Field(gt=0)
    """MACs per image, as the authors count."""


class Published(_CardPart):
    """What the authors report of released weights, next to which the card's own numbers stand."""

    top1: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Top-1 accuracy at each step."""
    macs: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """MACs per image of a run stopped at each step, as the authors count."""
    exits: tuple[PublishedExits, ...] = ()
    """Early exits by thresholds of each step, one entry per budget."""


class _Open(_CardPart):
    """Has further keys, of any kind."""

    model_config = ConfigDict(extra="allow")


class _TrainedPhase(_Open):
    epochs: int | None = None
    steps: int | None = None


class _TrainedRecipe(_Open):
    seed: int = 0
    start: str | None = None
    phase: tuple[_TrainedPhase, ...] = ()


class _TrainedFrom(_Open):
    card: str


class _Trained(_Open):
    """What is read of `CardConfig.trained`."""

    command: str = ""
    minutes: float | None = None
    machine: str = ""
    torch: str = ""
    data: str | None = None
    notes: tuple[str, ...] = ()
    imported_from: str = ""
    start: _TrainedFrom | None = None
    recipe: _TrainedRecipe | None = None
    published: Published | None = None


def _readable(trained: dict[str, Any]) -> dict[str, Any]:
    _Trained.model_validate(trained)
    return trained


class CardConfig(_CardPart):
    """The content of config.json."""

    format: Version = 1
    """Version of this format."""
    name: Name
    """MODEL.DATA[.VARIANT]."""
    model: Name
    """Name of the model."""
    plugin: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    """The distribution whose plugin registers the model."""
    config: dict[str, Any]
    """Settings of the model."""
    task: CardTask
    data: CardData
    weights: Weights | None
    """None for a card without weights of its own; then `hub` names the repository with the weights."""
    hub: str | None = None
    """The Hub repository with the weights, OWNER/NAME[@REVISION]."""
    released: bool = False
    """Whether this repository is the authors' own and no card: only its model.safetensors is taken. If the hash of that file is not known
    here (`weights` is null), it is the one that the file has there. A setting `revision` of the model overrides that of `hub`."""
    license: str = Field(default="apache-2.0", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")
    """License of the weights as an SPDX identifier, or 'unknown'."""
    trained: Annotated[dict[str, Any], AfterValidator(_readable)] = {}
    """How the model was trained or imported; for released weights, `published` is a `Published`."""

    @property
    def seed(self) -> int | None:
        """The seed of the training; None for a card that was not trained by a recipe."""
        recipe = self.trained.get("recipe")
        seed = recipe.get("seed", 0) if isinstance(recipe, dict) else None  # a recipe is recorded without its defaults
        return seed if type(seed) is int else None

    @property
    def recipe_id(self) -> str | None:
        """A hash of all that decides the weights but the seed: cards with the same one were trained by one recipe with several seeds.

        None for a card that was not trained by a recipe. Of a card that the training started with, the seed is left out, too.
        """
        if self.seed is None:
            return None
        recipe = {key: value for key, value in self.trained["recipe"].items() if key != "seed"}
        recipe["start"] = re.sub(r"\.seed-\d+$", "", str(recipe.get("start", "")))
        own = self.model_dump(mode="json", include={"model", "plugin", "config", "task", "data"})
        text = json.dumps({**own, "recipe": recipe, "fingerprint": self.trained.get("data")}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def published(self) -> Published | None:
        """What the authors of released weights report."""
        found = self.trained.get("published")
        return None if found is None else Published.model_validate(found)

    def to_json(self) -> bytes:
        """The bytes of the file."""
        return (json.dumps(self.model_dump(mode="json"), indent=2) + "\n").encode()
