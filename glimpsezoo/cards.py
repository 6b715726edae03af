"""Cards: a trained model as a folder of README.md, config.json, model.safetensors, and result.json with its rows as evidence."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.plugins import registry
from glimpsezoo.specs import ModelSpec, Task

CONFIG, WEIGHTS, RESULT, README = "config.json", "model.safetensors", "result.json", "README.md"


class Weights(BaseModel):
    """The weights' file, its hash and its size in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str = WEIGHTS
    sha256: str
    bytes: int


class CardTask(BaseModel):
    """A `Task` as it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    image_size: tuple[int, int]
    channels: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def task(self) -> Task:
        return Task(**self.model_dump())


class CardConfig(BaseModel):
    """config.json.

    name: MODEL.DATA[.VARIANT]. model, plugin: what builds it, and the distribution that has it. config: the model's settings.
    data: the data set's name and settings. hub: a Hub repository that holds the weights, or None. trained: how, in the trainer's words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    name: str
    model: str
    plugin: str
    config: dict[str, Any]
    task: CardTask
    data: dict[str, Any]
    weights: Weights | None
    hub: str | None = None
    license: str = "apache-2.0"
    trained: dict[str, Any] = {}


@dataclass(frozen=True)
class Card:
    """A card on disk."""

    folder: Path
    config: CardConfig

    @property
    def name(self) -> str:
        return self.config.name

    @classmethod
    def read(cls, folder: Path) -> "Card":
        """Read a card's config. Raises `GlimpseZooError` for a folder that is none, or whose config.json is not as it should be."""
        path = folder / CONFIG
        if not path.is_file():
            raise GlimpseZooError(f"expected a card (a folder with {CONFIG}), got {folder.name!r} without one")
        try:
            config = CardConfig.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise GlimpseZooError(f"the {CONFIG} of card {folder.name!r} is not valid: {where}: {first['msg']}") from None
        return cls(folder, config)

    def weights(self) -> dict[str, Any]:
        """The tensors by name, after checking the file against its hash.

        Raises `GlimpseZooError` for missing weights, another hash, or a file that is no whole safetensors file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        declared = self.config.weights
        if declared is None:
            raise GlimpseZooError(
                f"card {self.name!r} has neither weights nor a Hub repository: train it, or measure untrained by --checkpoint none"
            )
        path = self.folder / declared.file
        if not path.is_file():
            raise GlimpseZooError(f"card {self.name!r} names weights {declared.file!r} that are not in its folder: get the whole card again")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != declared.sha256:
            cut = f" ({len(content)} bytes of {declared.bytes})" if len(content) != declared.bytes else ""
            raise GlimpseZooError(
                f"the weights of card {self.name!r} are not the ones its {CONFIG} names: the sha256 differs{cut}; get the card again"
            )
        try:
            return load(content)
        except SafetensorError as error:
            raise GlimpseZooError(f"the weights of card {self.name!r} are no safetensors file: {one_line(error)}") from None

    def load_into(self, model: Any, *, changed: Mapping[str, Any]) -> None:
        """Load the weights into `model`, tensor by tensor the same names and shapes.

        changed: settings that differ from the card's, to be named when the tensors do not fit. Raises `GlimpseZooError`.
        """
        tensors, own = self.weights(), model.state_dict()
        problems = [f"{name} is missing" for name in own if name not in tensors]
        problems += [f"{name} is not in the model" for name in tensors if name not in own]
        problems += [
            f"{name} is {list(tensors[name].shape)}, the model's is {list(own[name].shape)}"
            for name in own
            if name in tensors and tensors[name].shape != own[name].shape
        ]
        if problems and changed:
            keys = ", ".join(f"{key}={value}" for key, value in changed.items())
            raise GlimpseZooError(f"--set {keys} contradicts the trained card {self.name!r} ({problems[0]}): drop it, or --checkpoint none")
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise GlimpseZooError(f"the weights of card {self.name!r} do not fit its model: tensor {problems[0]}{more}")
        model.load_state_dict(tensors)


def card_folders() -> list[Path]:
    """Where cards are looked for, in order: ./zoo_cards, the user's folder, then inside or beside the packages that have models."""
    packages = dict.fromkeys(spec.model.partition(".")[0] for spec in registry().all(ModelSpec))
    places = [Path("zoo_cards"), user_folder() / "cards"]
    for package in ("glimpsezoo", *packages):
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        home = Path(spec.origin).parent
        places.append(home / "zoo_cards")  # a wheel carries its own
        places += [up / "zoo_cards" for up in home.parents[:3] if (up / "zoo_cards").is_dir() and (up / "glimpsezoo").is_dir()]
    unique: dict[Path, Path] = {}
    for place in places:
        if place.is_dir():
            unique.setdefault(place.resolve(), place)
    return list(unique.values())


def user_folder() -> Path:
    """The user's own folder: $GLIMPSEZOO_HOME, or ~/.glimpsezoo."""
    return Path(os.environ.get("GLIMPSEZOO_HOME") or Path.home() / ".glimpsezoo")


def all_cards() -> Iterator[Card]:
    """Every card that can be named, the first of a name winning."""
    seen: set[str] = set()
    for place in card_folders():
        for folder in sorted(place.iterdir()):
            if (folder / CONFIG).is_file() and folder.name not in seen:
                seen.add(folder.name)
                yield Card.read(folder)


def find_card(name: str) -> Card | None:
    """The card of that name, or at that path; None if there is none."""
    path = Path(name)
    if (path / CONFIG).is_file():
        return Card.read(path)
    for place in card_folders():
        if (place / name / CONFIG).is_file():
            return Card.read(place / name)
    return None


def write_card(folder: Path, config: CardConfig, model: Any) -> Card:
    """Write weights and config.json; the config, which makes a folder a card, comes last and whole."""
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    weights = Weights(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS, content)
    config = config.model_copy(update={"weights": weights})
    write_whole(folder / CONFIG, (json.dumps(config.model_dump(mode="json"), indent=2) + "\n").encode())
    return Card(folder, config)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old content or the new, never a part."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
