"""Cards: folders with a trained model (config.json, model.safetensors), its README.md, and its evidence (result.json, rows.parquet)."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from glimpsezoo.downloads import in_cache
from glimpsezoo.errors import GlimpseZooError, one_line, why_not
from glimpsezoo.files import file_name, finish_replacing, user_folder, write_whole
from glimpsezoo.hashing import sha256_of
from glimpsezoo.schema import why_invalid
from glimpsezoo.specs import ModelSpec
from glimpsezoo.untrusted import JSON_SIZE, json_values, parsed, read_regular
from glimpsezoo.zoo.card_config import CONFIG, WEIGHTS, CardConfig, Weights
from glimpsezoo.zoo.hub import PREFIX, Blob, Repository, fetch, fetch_blob, fetch_if_there
from glimpsezoo.zoo.plugins import registry

if TYPE_CHECKING:  # cards are also listed without loading result.json's records
    from glimpsezoo.measures.result import Checkpoint

README = "README.md"
RESULT, ROWS = "result.json", "rows.parquet"  # the evidence
LOG, CURVE = HISTORY = ("training.jsonl", "training.svg")  # losses and accuracy during the training, and a plot of them
PLACES = "places"  # in the user's folder: where measured cards were, by the hash of their weights


@dataclass(frozen=True)
class Card:
    """A card on disk."""

    folder: Path
    config: CardConfig
    origin: Repository | None = None
    """The Hub repository with the weights, at a commit if that is known."""
    address: str = ""
    """A name that finds the card again, which tables and results use: see `find_card`."""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def called(self) -> str:
        """The name that users know it by: its address, or its name if it was not looked up."""
        return self.address or self.name

    @classmethod
    def read(cls, folder: Path, *, called: str = "") -> "Card":
        """Read the card in a folder. called: what errors call the card; the name of the folder by default.

        Raises `GlimpseZooError` if the folder is not a card, or if its config.json is invalid.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise GlimpseZooError(f"expected a card (a folder with {CONFIG}), got {str(folder)!r} without one")
        with suppress(OSError):  # of a folder that cannot be written
            finish_replacing(folder)
        try:
            config = parsed(CardConfig, read_regular(path, JSON_SIZE))
        except (OSError, ValidationError) as error:
            wrong = why_invalid(error) if isinstance(error, ValidationError) else why_not(error)
            name = called or folder.resolve().name
            raise GlimpseZooError(
                f"expected a valid {CONFIG} in the card {name!r}, got an invalid one ({wrong}): get the card again"
            ) from None
        return cls(folder, config, Repository.parse(config.hub) if config.hub else None)

    @classmethod
    def of_hub(cls, place: Repository) -> "Card":
        """The card in a Hub repository, at the commit that the revision names now. Its weights are downloaded when they are used."""
        path, place = fetch(place, CONFIG)
        fetch_if_there(place, RESULT)
        return replace(cls.read(path.parent, called=place.name), origin=place)

    @property
    def has_file(self) -> bool:
        """Whether the folder contains the weights."""
        return self.config.weights is not None and (self.folder / self.config.weights.file).is_file()

    def located(self) -> "Card":
        """The card, completed with the file name, the hash and the commit of weights that are only in a Hub repository.

        Raises `GlimpseZooError` if the card in the repository is a different one.
        """
        if self.origin is None or self.has_file or (self.config.weights and self.origin.at_commit):
            return self
        if self.config.released:
            return self._pinned(self.origin)
        remote = Card.of_hub(self.origin)
        own, theirs = self.config, remote.config
        if theirs.weights is None:
            raise GlimpseZooError(f"card {self.name!r} names the Hub repository {self.origin}, whose card has no weights: name another")
        if (theirs.model, theirs.config, theirs.task) != (own.model, own.config, own.task):
            raise GlimpseZooError(
                f"card {self.name!r} names the Hub repository {self.origin}, whose card {remote.name!r} has another model or task: "
                "get the card again"
            )
        if own.weights not in (None, theirs.weights):
            raise GlimpseZooError(
                f"card {self.name!r} expects other weights than those in the Hub repository {self.origin} (another sha256): "
                "get the card again, or add the revision to its hub"
            )
        return replace(self, config=own.model_copy(update={"weights": theirs.weights}), origin=remote.origin)

    def at(self, revision: str) -> "Card":
        """A card of released weights with those of another revision of the authors' repository: a branch, a tag or a commit."""
        assert self.origin is not None
        place = Repository.parse(f"{self.origin.name}@{revision}")
        return replace(self, config=self.config.model_copy(update={"weights": None, "hub": str(place)}), origin=place)

    def _pinned(self, place: Repository) -> "Card":
        """The card with the weights that the authors' repository has now at its revision: their hash, and the commit."""
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            path, place = fetch(place, WEIGHTS)
        except GlimpseZooError as error:
            if isinstance(error.__cause__, RevisionNotFoundError):
                raise GlimpseZooError(
                    f"card {self.name!r} takes its weights from {place}, a revision that the repository does not have: "
                    f"name another by --set revision=REVISION (see {place.page}/commits/main)"
                ) from None
            raise
        digest, content = sha256_of(path), path.resolve()  # the cache calls a large file by the hash that the Hub says
        if re.fullmatch("[0-9a-f]{64}", content.name) and content.name != digest:
            content.unlink()
            raise GlimpseZooError(f"card {self.name!r} takes its weights from {place}, got a damaged file, now deleted: run again")
        weights = Weights(sha256=digest, bytes=path.stat().st_size)
        return replace(self, config=self.config.model_copy(update={"weights": weights}), origin=place)

    def checkpoint(self) -> "Checkpoint | None":
        """The source of the weights for results: address, commit and hash; None before the card is `located`."""
        from glimpsezoo.measures.result import Checkpoint

        if self.config.weights is None:
            return None
        uri, revision = (f"{PREFIX}{self.origin.name}", self.origin.revision) if self.origin else (self.called, None)
        return Checkpoint(uri=uri, revision=revision, sha256=self.config.weights.sha256)

    def weights_file(self) -> Path:
        """The file with the weights, downloaded from the Hub if necessary. Raises `GlimpseZooError`."""
        card = self.located()
        declared = card.config.weights
        if declared is None:
            raise GlimpseZooError(
                f"card {self.name!r} has neither weights nor a Hub repository: train it, or measure it untrained by --checkpoint none"
            )
        own = card.folder / declared.file
        if card.has_file and not (card.origin and in_cache(own)):  # a damaged file in the cache is fetched again
            return own
        if card.origin is None:
            raise GlimpseZooError(
                f"card {self.name!r} expects weights in {declared.file!r}, which is not in its folder: get the card again, or train it "
                f"('glimpsezoo train {self.name} -o DIR') and name DIR"
            )
        return fetch_blob(card.origin, Blob(declared.file, declared.sha256, declared.bytes))

    def weights(self) -> dict[str, Any]:
        """The tensors by name, all of them finite.

        Raises `GlimpseZooError` if the file is missing, has another hash, is not a safetensors file, or has NaN or infinite values.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        card = self.located()
        file, declared = card.weights_file(), card.config.weights
        assert declared is not None  # or there would be no file
        size = file.stat().st_size
        content = read_regular(file, size) if size == declared.bytes else b""
        if hashlib.sha256(content).hexdigest() != declared.sha256:
            cut = f", {size} bytes of {declared.bytes}" if size != declared.bytes else ""
            raise GlimpseZooError(
                f"card {self.name!r} expects other weights than those in its file (another sha256{cut}): get the card again"
            )
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise GlimpseZooError(
                f"card {self.name!r} expects its weights as safetensors, got a damaged file ({one_line(error)}): get the card again"
            ) from None
        except KeyError as error:  # safetensors has more types of numbers than it can give to torch
            raise GlimpseZooError(
                f"card {self.name!r} expects weights of a type that torch computes with, got {error.args[0]!r}: get the card again"
            ) from None
        if wrong := not_finite(tensors):
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise GlimpseZooError(f"card {self.name!r} expects finite weights, got {wrong[0]}{more}: get the card again, or train it again")
        return tensors

    def load_into(self, model: Any, *, changed: Mapping[str, Any]) -> None:
        """Load the weights into a model that has the same tensors.

        changed: settings that differ from the card; an error names them if the tensors do not fit. Raises `GlimpseZooError`.
        """
        tensors = self.weights()
        problems = misfits(tensors, model.state_dict())
        if problems and changed:
            keys = ", ".join(f"{key}={value}" for key, value in changed.items())
            raise GlimpseZooError(f"--set {keys} contradicts the trained card {self.name!r} ({problems[0]}): drop it, or --checkpoint none")
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            remedy = f"get matching versions of the card and {self.config.plugin}"
            raise GlimpseZooError(f"the weights of card {self.name!r} do not fit its model: {problems[0]}{more}; {remedy}")
        model.load_state_dict(tensors)


def misfits(tensors: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Why `tensors` cannot be loaded into a model with the state `own`: tensors that are missing, extra, of another kind or shape."""
    missing = [f"tensor {name} is missing" for name in own if name not in tensors]
    extra = [f"tensor {name} is not in the model" for name in tensors if name not in own]
    odd = {name: kind for name in own if name in tensors and (kind := _kind(tensors[name])) != _kind(own[name])}
    kinds = [f"tensor {name} is {kind}, the model's is {_kind(own[name])}" for name, kind in odd.items()]
    shapes = [
        f"tensor {name} is {list(tensors[name].shape)}, the model's is {list(own[name].shape)}"
        for name in own
        if name in tensors and name not in odd and tensors[name].shape != own[name].shape
    ]
    return missing + extra + kinds + shapes


def _kind(tensor: Any) -> str:
    """What torch copies values from: of another kind, it leaves out what does not fit (imaginary parts), or raises errors of its own."""
    other = (
        ("nested", tensor.is_nested),
        ("quantised", tensor.is_quantized),
        ("without values", tensor.is_meta),
        ("sparse", "sparse" in str(tensor.layout)),
        ("complex", tensor.is_complex()),
    )
    return next((kind for kind, found in other if found), "dense and real")


def not_finite(tensors: Mapping[str, Any]) -> list[str]:
    """The tensors with values that are NaN or infinite in float32, in which models compute, and how many those are."""
    found = []
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            values = tensor.float() if tensor.element_size() in (1, 8) else tensor  # torch cannot calculate with 8 bits
            if not values.sum().isfinite():  # a finite sum, which is quick, has finite terms
                count = values.numel() - int(values.isfinite().sum())
                found += [f"tensor {name} with {count:,} of {values.numel():,} values NaN or infinite"] if count else []
    return found


def card_folders() -> list[Path]:
    """The folders with cards, in the order of the search: ./zoo_cards, the user's folder, then those in or beside packages with models."""
    packages = dict.fromkeys(re.split("[.:]", spec.model)[0] for spec in registry().all(ModelSpec))
    places = [Path("zoo_cards")]
    with suppress(GlimpseZooError):  # a user without a home folder has no cards there
        places.append(user_folder() / "cards")
    for package in ("glimpsezoo", *packages):
        spec = find_spec(package)
        for home in map(Path, (spec and spec.submodule_search_locations) or ()):
            places.append(home / "zoo_cards")  # from a wheel
            places += [up / "zoo_cards" for up in home.parents[:3] if (up / "zoo_cards").is_dir() and (up / "glimpsezoo").is_dir()]
    unique: dict[Path, Path] = {}
    for place in places:
        if os.access(place, os.R_OK | os.X_OK) and place.is_dir():  # false for folders that this user may not read
            unique.setdefault(place.resolve(), place)
    return list(unique.values())


def card_paths() -> dict[str, Path]:
    """The folder of every card, by the name of the folder. The first folder with a name wins."""
    found: dict[str, Path] = {}
    for place in card_folders():
        for folder in sorted(place.iterdir()):
            if os.path.isfile(folder / CONFIG):  # false, not an error, in a folder that this user may not enter
                found.setdefault(folder.name, folder)
    return found


def find_card(name: str) -> Card | None:
    """The card with this path, this name, or this place on the Hub (`hf-hub:OWNER/NAME[@REVISION]`); None if there is none.

    The address of the card is the name that finds it. If only a path finds it, the address is the path relative to the working directory;
    outside of the working directory, an absolute path is reduced to the name of the folder, because results must not describe the machine.
    Raises `GlimpseZooError` for a card that cannot be read or downloaded.
    """
    if name.startswith(PREFIX):
        return replace(Card.of_hub(Repository.parse(name)), address=name)
    folder = _folder_of(name)
    if folder is None:
        return None
    card = Card.read(folder)
    return replace(card, address=_address(name, card))


def _folder_of(name: str, coming: Path | None = None) -> Path | None:
    """The folder that a name finds. coming: a folder that counts as a card although its config.json is not written yet."""
    places = card_folders() if file_name(name) not in {"", ".", ".."} else ()
    for folder in (Path(name), *(place / file_name(name) for place in places)):
        if os.path.isfile(folder / CONFIG) or (coming and folder.resolve() == coming):
            return folder
    return None


def address_of(card: Card) -> str:
    """The name that finds a card in its folder from here; from elsewhere, if it is outside of the working directory, its folder's name."""
    return _address(str(card.folder.absolute()), card)


def _address(name: str, card: Card) -> str:
    folder = card.folder.resolve()
    own = card.name if file_name(card.name) == folder.name else folder.name
    found = _folder_of(own, coming=folder)
    if found is not None and found.resolve() == folder:
        return own
    path, here = Path(os.path.abspath(name)), Path.cwd()
    if path.is_relative_to(here):
        return str(path.relative_to(here))
    return path.name if Path(name).is_absolute() else os.path.normpath(name)


def remember_place(card: Card) -> None:
    """Remember on this machine where a card is, so that the hash of its weights in a result finds it."""
    if card.origin is None and card.config.weights is not None:
        place = user_folder() / PLACES / card.config.weights.sha256
        with suppress(OSError):  # then only its address finds it
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, os.fsencode(card.folder.resolve()))


def card_with_weights(addresses: Iterable[str], sha256: str) -> Card:
    """The card with these weights: at one of the addresses, or where it was when it was measured on this machine.

    Raises `GlimpseZooError` if there is none; the error names a card at an address that has other weights.
    """
    others = []
    for address in dict.fromkeys(addresses):
        with suppress(GlimpseZooError):  # a card that cannot be read or downloaded
            card = find_card(address)
            card = card.located() if card else None
            if card and card.config.weights and card.config.weights.sha256 == sha256:
                return card
            others += [address] if card else []
    with suppress(OSError, GlimpseZooError):
        card = find_card(os.fsdecode((user_folder() / PLACES / sha256).read_bytes()))
        if card and card.config.weights and card.config.weights.sha256 == sha256:
            return card
    if others:
        raise GlimpseZooError(f"the card at {others[0]!r} has other weights now than those that were measured (another sha256)")
    raise GlimpseZooError("the card that was measured is not on this machine")


def training_log(folder: Path) -> tuple[dict[str, Any], ...]:
    """The lines of a card's training log that have losses; empty if there is no log.

    Lines that cannot be parsed are skipped, because the last line is incomplete after a crash.
    """
    try:
        content = read_regular(folder / LOG, JSON_SIZE)
    except OSError:
        return ()
    lines = []
    for text in content.splitlines():
        with suppress(ValueError):
            lines.append(json_values(text))
    return tuple(line for line in lines if isinstance(line, dict) and isinstance(line.get("losses"), dict))


def write_card(
    folder: Path, config: CardConfig, model: Any, *, keep_log: bool = False, beside: Callable[[Card], None] = lambda card: None
) -> Card:
    """Write the weights, then what is `beside` them, and last config.json, which makes the folder a card.

    Removes the evidence and history of an earlier card, which belong to other weights. keep_log: keeps the training log.
    """
    from safetensors.torch import save

    # Copies, because safetensors refuses tensors that share memory.
    content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()})
    weights = Weights(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    folder.mkdir(parents=True, exist_ok=True)
    for old in (CONFIG, RESULT, ROWS, CURVE, *(() if keep_log else (LOG,))):
        (folder / old).unlink(missing_ok=True)
    write_whole(folder / WEIGHTS, content)
    config = config.model_copy(update={"weights": weights})
    beside(Card(folder, config))
    return write_config(folder, config)


def write_config(folder: Path, config: CardConfig) -> Card:
    """Write a card's config.json atomically."""
    write_whole(folder / CONFIG, config.to_json())
    return Card(folder, config, Repository.parse(config.hub) if config.hub else None)
