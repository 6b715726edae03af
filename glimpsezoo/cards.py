"""Cards: a trained model as a folder of README.md, config.json, model.safetensors, and result.json with its rows as evidence."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.files import user_folder, write_whole
from glimpsezoo.hub import PREFIX, Blob, Repository, fetch, fetch_blob, fetch_if_there
from glimpsezoo.plugins import registry
from glimpsezoo.records import Checkpoint
from glimpsezoo.specs import ModelSpec, Task

CONFIG, WEIGHTS, README = "config.json", "model.safetensors", "README.md"
RESULT, ROWS = "result.json", "rows.parquet"  # the evidence
LOG, CURVE = HISTORY = ("training.jsonl", "training.svg")  # how the losses and the accuracy went, and a drawing of it
UNKNOWN = "unknown"  # the data of a model that no card says more about
PLACES = "places"  # in the user's folder: where cards lay that were measured, by their weights' hash


def _one_name(text: str) -> str:
    """Refuse what could not stand in a line, or as a folder's name: a card may come from anybody."""
    if not text.isprintable() or file_name(text) in {"", ".", ".."} or "\\" in text or len(text) > 200:
        raise ValueError("expected a printable name")
    return text


Name = Annotated[str, AfterValidator(_one_name)]


class Weights(BaseModel):
    """The weights' file, its hash and its size in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str = Field(default=WEIGHTS, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\.safetensors$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class CardTask(BaseModel):
    """A `Task` as it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    image_size: tuple[int, int]
    channels: int
    classes: tuple[str, ...]
    mean: tuple[FiniteFloat, ...]
    std: tuple[FiniteFloat, ...]

    def task(self) -> Task:
        return Task(**self.model_dump())


class CardData(BaseModel):
    """The data set that a card was trained on: its name, and what was `--set data.KEY`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Name
    settings: dict[str, Any] = {}


class CardConfig(BaseModel):
    """config.json.

    name: MODEL.DATA[.VARIANT]. model, plugin: what builds it, and the distribution that has it. config: the model's settings.
    hub: a Hub repository that holds the weights, OWNER/NAME[@REVISION], or None. trained: how, in the trainer's words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    name: Name
    model: Name
    plugin: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    config: dict[str, Any]
    task: CardTask
    data: CardData
    weights: Weights | None
    hub: str | None = None
    license: str = Field(default="apache-2.0", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")
    trained: dict[str, Any] = {}

    def to_json(self) -> bytes:
        """The content of the file."""
        return (json.dumps(self.model_dump(mode="json"), indent=2) + "\n").encode()


@dataclass(frozen=True)
class Card:
    """A card on disk.

    origin: the repository of the Hub, at a commit where that is known, that holds its weights; None without one. address: what finds the
    card again, and so what tables and results call it: see `find_card`.
    """

    folder: Path
    config: CardConfig
    origin: Repository | None = None
    address: str = ""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def called(self) -> str:
        """Its address, or its own name where nothing has been looked for."""
        return self.address or self.name

    @classmethod
    def read(cls, folder: Path, *, called: str = "") -> "Card":
        """Read a card's config; `called` names it in errors instead of its folder.

        Raises `GlimpseZooError` for a folder that is none, or whose config.json is not as it should be.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise GlimpseZooError(f"expected a card (a folder with {CONFIG}), got {str(folder)!r} without one")
        try:
            config = CardConfig.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            wrong = one_line(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                wrong = f"{where}: {first['msg']}" if where else first["msg"]
            name = called or folder.resolve().name
            raise GlimpseZooError(
                f"expected the {CONFIG} of a card in {name!r}, got a file that is none ({wrong}): get the card again"
            ) from None
        return cls(folder, config, Repository.parse(config.hub) if config.hub else None)

    @classmethod
    def of_hub(cls, place: Repository) -> "Card":
        """The card in a repository of the Hub, at the commit that its revision now names. Its weights are fetched when they are used."""
        path, place = fetch(place, CONFIG)
        fetch_if_there(place, RESULT)
        return replace(cls.read(path.parent, called=place.name), origin=place)

    @property
    def has_file(self) -> bool:
        """Whether the weights lie in its own folder."""
        return self.config.weights is not None and (self.folder / self.config.weights.file).is_file()

    def located(self) -> "Card":
        """The card with its weights' name and hash, and their commit, where its folder has none and it names a repository of the Hub.

        Raises `GlimpseZooError` if the repository's card is another one.
        """
        if self.origin is None or self.has_file or (self.config.weights and self.origin.at_commit):
            return self
        there = Card.of_hub(self.origin)
        own, theirs = self.config, there.config
        if theirs.weights is None:
            raise GlimpseZooError(f"card {self.name!r} names the Hub repository {self.origin}, whose card has no weights: name another")
        if (theirs.model, theirs.config, theirs.task) != (own.model, own.config, own.task):
            raise GlimpseZooError(
                f"card {self.name!r} names the Hub repository {self.origin}, whose card {there.name!r} has another model or task: "
                "get the card again"
            )
        if own.weights not in (None, theirs.weights):
            raise GlimpseZooError(
                f"the weights in the Hub repository {self.origin} are not those that card {self.name!r} names (another sha256): "
                "get the card again, or pin the repository's revision in its hub"
            )
        return replace(self, config=own.model_copy(update={"weights": theirs.weights}), origin=there.origin)

    def checkpoint(self) -> Checkpoint | None:
        """What a result says of the weights: where they came from, the commit there, and their hash; None before they are `located`."""
        if self.config.weights is None:
            return None
        uri, revision = (f"{PREFIX}{self.origin.name}", self.origin.revision) if self.origin else (self.called, None)
        return Checkpoint(uri=uri, revision=revision, sha256=self.config.weights.sha256)

    def weights_file(self) -> Path:
        """The file of the weights, fetched from the Hub where that has them. Raises `GlimpseZooError`."""
        card = self.located()
        declared = card.config.weights
        if declared is None:
            raise GlimpseZooError(
                f"card {self.name!r} has neither weights nor a Hub repository: train it, or measure it untrained by --checkpoint none"
            )
        if card.has_file:
            return card.folder / declared.file
        if card.origin is None:
            raise GlimpseZooError(
                f"card {self.name!r} names weights {declared.file!r} that are not in its folder: get the card again, or train it "
                f"('glimpsezoo train {self.name} -o DIR') and name DIR"
            )
        return fetch_blob(card.origin, Blob(declared.file, declared.sha256, declared.bytes))

    def weights(self) -> dict[str, Any]:
        """The tensors by name, after checking the file against its hash.

        Raises `GlimpseZooError` for missing weights, another hash, or a file that is no whole safetensors file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        card = self.located()
        content, declared = card.weights_file().read_bytes(), card.config.weights
        assert declared is not None  # or there would be no file
        if hashlib.sha256(content).hexdigest() != declared.sha256:
            cut = f", {len(content)} bytes of {declared.bytes}" if len(content) != declared.bytes else ""
            raise GlimpseZooError(
                f"the weights of card {self.name!r} are not those that its {CONFIG} names (another sha256{cut}): get the card again"
            )
        try:
            return load(content)
        except SafetensorError as error:
            raise GlimpseZooError(
                f"the weights of card {self.name!r} are no whole safetensors file ({one_line(error)}): get the card again"
            ) from None

    def load_into(self, model: Any, *, changed: Mapping[str, Any]) -> None:
        """Load the weights into `model`, tensor by tensor the same names and shapes.

        changed: settings that differ from the card's, to be named when the tensors do not fit. Raises `GlimpseZooError`.
        """
        tensors = self.weights()
        problems = misfits(tensors, model.state_dict())
        if problems and changed:
            keys = ", ".join(f"{key}={value}" for key, value in changed.items())
            raise GlimpseZooError(f"--set {keys} contradicts the trained card {self.name!r} ({problems[0]}): drop it, or --checkpoint none")
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            remedy = f"get the card and {self.config.plugin} of one version"
            raise GlimpseZooError(f"the weights of card {self.name!r} do not fit its model: {problems[0]}{more}; {remedy}")
        model.load_state_dict(tensors)


def misfits(tensors: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """What keeps `tensors` from being loaded into a model whose state is `own`: tensors missing, extra or of another shape."""
    missing = [f"tensor {name} is missing" for name in own if name not in tensors]
    extra = [f"tensor {name} is not in the model" for name in tensors if name not in own]
    shapes = [
        f"tensor {name} is {list(tensors[name].shape)}, the model's is {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    return missing + extra + shapes


def card_folders() -> list[Path]:
    """Where cards are looked for, in order: ./zoo_cards, the user's folder, then inside or beside the packages that have models."""
    packages = dict.fromkeys(re.split("[.:]", spec.model)[0] for spec in registry().all(ModelSpec))
    places = [Path("zoo_cards")]
    with suppress(GlimpseZooError):  # a user without a home has no cards there
        places.append(user_folder() / "cards")
    for package in ("glimpsezoo", *packages):
        spec = find_spec(package)
        for home in map(Path, (spec and spec.submodule_search_locations) or ()):
            places.append(home / "zoo_cards")  # a wheel carries its own
            places += [up / "zoo_cards" for up in home.parents[:3] if (up / "zoo_cards").is_dir() and (up / "glimpsezoo").is_dir()]
    unique: dict[Path, Path] = {}
    for place in places:
        if os.access(place, os.R_OK | os.X_OK) and place.is_dir():  # somebody else's home says no, and has no cards for this user
            unique.setdefault(place.resolve(), place)
    return list(unique.values())


def card_paths() -> dict[str, Path]:
    """The folder of every card that can be named, by the folder's name; the first of a name wins."""
    found: dict[str, Path] = {}
    for place in card_folders():
        for folder in sorted(place.iterdir()):
            if os.path.isfile(folder / CONFIG):  # false, and no error, in a folder that this user may not enter
                found.setdefault(folder.name, folder)
    return found


def find_card(name: str) -> Card | None:
    """The card at that path, of that name, or at that place of the Hub (`hf-hub:OWNER/NAME[@REVISION]`); None if there is none.

    Its address is the name that finds it; of one that only its path finds, the path as it was given or, where that was absolute, from the
    working directory; above that, the folder's name alone, for results say no more of a machine. Raises `GlimpseZooError` for one that
    cannot be read or had.
    """
    if name.startswith(PREFIX):
        return replace(Card.of_hub(Repository.parse(name)), address=name)
    folder = _folder_of(name)
    if folder is None:
        return None
    card = Card.read(folder)
    return replace(card, address=_address(name, card))


def _folder_of(name: str) -> Path | None:
    return Path(name) if os.path.isfile(Path(name, CONFIG)) else card_paths().get(file_name(name))


def _address(name: str, card: Card) -> str:
    folder = card.folder.resolve()
    own = card.name if file_name(card.name) == folder.name else folder.name
    found = _folder_of(own)
    if found is not None and found.resolve() == folder:
        return own
    path, here = Path(os.path.abspath(name)), Path.cwd()
    if path.is_relative_to(here):
        return str(path.relative_to(here))
    return path.name if Path(name).is_absolute() else os.path.normpath(name)


def remember_place(card: Card) -> None:
    """Note, on this machine alone, where a card lies, for those who have its weights' hash from a result."""
    if card.origin is None and card.config.weights is not None:
        place = user_folder() / PLACES / card.config.weights.sha256
        with suppress(OSError):  # then it is found by its address alone
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, str(card.folder.resolve()).encode())


def card_with_weights(addresses: Iterable[str], sha256: str) -> Card:
    """The card that has these weights: at one of the addresses, or where a card with them lay when it was measured on this machine.

    Raises `GlimpseZooError` if there is none, which says where a card of other weights lies.
    """
    others = []
    for address in dict.fromkeys(addresses):
        with suppress(GlimpseZooError):  # one that cannot be read or had
            card = find_card(address)
            card = card.located() if card else None
            if card and card.config.weights and card.config.weights.sha256 == sha256:
                return card
            others += [address] if card else []
    with suppress(OSError, GlimpseZooError):
        card = find_card((user_folder() / PLACES / sha256).read_text(encoding="utf-8"))
        if card and card.config.weights and card.config.weights.sha256 == sha256:
            return card
    if others:
        raise GlimpseZooError(f"the card at {others[0]!r} has other weights now than those that were measured (another sha256)")
    raise GlimpseZooError("the card that was measured is not on this machine")


def training_log(folder: Path) -> tuple[dict[str, Any], ...]:
    """The lines of a card's training log that tell losses; none where there is no log.

    A line that cannot be read is left out: of a machine that went down, the last one may be torn.
    """
    try:
        content = (folder / LOG).read_bytes()
    except OSError:
        return ()
    lines = []
    for text in content.splitlines():
        with suppress(ValueError, RecursionError):
            lines.append(json.loads(text))
    return tuple(line for line in lines if isinstance(line, dict) and isinstance(line.get("losses"), dict))


def file_name(name: str) -> str:
    """A model's or card's name as that of a file or folder.

    >>> file_name("timm:resnet18.digits")
    'timm_resnet18.digits'
    """
    return name.replace(":", "_").replace("/", "_")


def write_card(folder: Path, config: CardConfig, model: Any, *, keep_log: bool = False) -> Card:
    """Write weights and config.json; the config, which makes a folder a card, comes last and whole.

    What an earlier card left as its evidence and its history goes: it is none of these weights. keep_log: the log that is there is theirs.
    """
    from safetensors.torch import save

    # Copies: safetensors takes no two tensors that share memory.
    content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()})
    weights = Weights(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    folder.mkdir(parents=True, exist_ok=True)
    for old in (CONFIG, RESULT, ROWS, CURVE, *(() if keep_log else (LOG,))):
        (folder / old).unlink(missing_ok=True)
    write_whole(folder / WEIGHTS, content)
    return write_config(folder, config.model_copy(update={"weights": weights}))


def write_config(folder: Path, config: CardConfig) -> Card:
    """Write a card's config.json, whole."""
    write_whole(folder / CONFIG, config.to_json())
    return Card(folder, config, Repository.parse(config.hub) if config.hub else None)
