"""Copy cards from the Hub and to it. The methods `from_pretrained`, `save_pretrained` and `push_to_hub` of every model are here, too."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.downloads import in_cache
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.files import check_writable, output_to, user_folder, whole
from glimpsezoo.reports.readme import card_text, write_card_readme
from glimpsezoo.specs import ModelSpec, load_string
from glimpsezoo.training.folder import locked, sweep_lock
from glimpsezoo.zoo.card_config import CONFIG, UNKNOWN, CardConfig, CardData, CardTask, card_name
from glimpsezoo.zoo.cards import HISTORY, README, RESULT, ROWS, Card, card_paths, file_name, write_card, write_config
from glimpsezoo.zoo.early import known_card
from glimpsezoo.zoo.hub import PREFIX, Repository, fetch_if_there, publish
from glimpsezoo.zoo.names import Assignments, build_model, choose_model, spec_of
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.results import evidence, rows_of

OPTIONAL = (RESULT, ROWS, *HISTORY)  # files that a card may have; its README is generated
M = TypeVar("M", bound=GlimpseModel[Any])


def pull_card(name: str, output: Path | None, *, force: bool = False) -> Card:
    """Copy a card from the Hub (`hf-hub:OWNER/NAME[@REVISION]`) into a folder. The default is the user's folder, where its name finds it.

    Nothing is written before all files are downloaded and the weights match the hash in the config. Raises `GlimpseZooError`.
    """
    place = Repository.parse(name)
    card = Card.of_hub(place).located()
    assert card.origin is not None
    folder = output or user_folder() / "cards" / file_name(card.name)
    sweep_lock(folder)
    _check_free(card, folder, named=output is None, force=force)
    check_writable(folder)
    card.weights()
    optional = {file: fetch_if_there(card.origin, file) for file in OPTIONAL}
    with locked(folder), output_to(folder):
        _check_free(card, folder, named=output is None, force=force)  # another command may have filled it meanwhile
        return _copied(card, optional, folder)


def _check_free(card: Card, folder: Path, *, named: bool, force: bool) -> None:
    """Refuse a folder that contains a card. named: refuse the name of another card, too."""
    if force:
        return
    if (folder / CONFIG).exists():
        raise GlimpseZooError(
            f"expected an output folder without a card, got {str(folder)!r} with one: choose another --output, or --force to replace it"
        )
    if named and folder.name in card_paths():
        raise GlimpseZooError(
            f"expected a card with a new name, got {card.name!r}, which {str(card_paths()[folder.name])!r} has: "
            "choose a folder by --output, or --force to let the new card precede that one"
        )


def _copied(card: Card, optional: Mapping[str, Path | None], folder: Path) -> Card:
    """Copy the card's files into a folder. The config comes last: it makes the folder a card, and names the repository."""
    folder.mkdir(parents=True, exist_ok=True)
    assert card.config.weights is not None
    for old in (CONFIG, *OPTIONAL):
        (folder / old).unlink(missing_ok=True)
    for name, source in {card.config.weights.file: card.weights_file(), **optional}.items():
        if source is not None:
            with whole(folder / name) as part:
                shutil.copyfile(source, part)
    config = card.config.model_copy(update={"hub": str(card.origin)})
    write_card_readme(Card(folder, config, card.origin))
    return write_config(folder, config)


def missing_plugin(card: Card) -> str | None:
    """The error that the card's plugin is missing or broken; None if it works."""
    try:
        spec_of(card.name, card)
    except GlimpseZooError as error:
        return str(error)
    return None


def push_card(name: str, repository: str, *, private: bool = False, force: bool = False) -> tuple[Card, str]:
    """Publish a card, given by name or folder, as OWNER/NAME on the Hub. Returns the published card and the URL of the commit.

    README.md is generated from the card's result.json; the file in the folder is not used. private: create a private repository.
    force: replace a card in the repository. Raises `GlimpseZooError`.
    """
    place = Repository.parse(repository)
    if place.revision:
        raise GlimpseZooError(f"expected OWNER/NAME to publish to, got {repository!r}: leave the revision out")
    card = known_card(name).located()
    _check_fits(card)
    assert card.config.weights is not None
    public = Card(card.folder, card.config.model_copy(update={"hub": place.name}))
    result = evidence(public)
    if result:
        rows_of(card.folder, result)  # raises if they are of another result
    files: dict[str, Path | bytes] = {
        README: card_text(public, result).encode(),
        CONFIG: public.config.to_json(),
        card.config.weights.file: card.weights_file(),
    }
    optional = OPTIONAL if result else HISTORY  # a result of other weights is not evidence for this card
    files |= {file: _own_file(card, file) for file in optional if (card.folder / file).is_file()}
    return public, publish(place, files, without=[file for file in OPTIONAL if file not in files], private=private, replacing=force)


def _own_file(card: Card, name: str) -> Path:
    """A file of a card, which may come from anybody: a link in its folder must not publish a file of this machine.

    Raises `GlimpseZooError` for a link that leads out of the folder, unless both are in the Hub's cache, which is made of links.
    """
    path = card.folder / name
    if path.resolve().is_relative_to(card.folder.resolve()) or (in_cache(card.folder) and in_cache(path)):
        return path
    raise GlimpseZooError(
        f"expected a card whose files are its own, got {str(card.folder)!r}, in which {name!r} is a link that leads out of it: put a copy "
        "in its place"
    )


def _check_fits(card: Card) -> None:
    """Check that the weights fit the card's model before they are published. Raises `GlimpseZooError`."""
    spec = spec_of(card.name, card)
    kind, schema = load_string(spec.model), load_string(spec.config)
    card.load_into(kind(schema.parse(card.config.config, owner=card.name), card.config.task.task()), changed={})


def from_pretrained(cls: type[M], name: str | Path, *, revision: str | None = None, **settings: Any) -> M:
    """A trained model in eval mode, on the CPU, from the Hub (`owner/name`) or a card's folder.

    revision: a branch, tag or commit on the Hub, also for the folder of a card of released weights. settings: what `--set` takes, where it
    does not contradict the weights.
    Raises `GlimpseZooError` for a card that cannot be loaded, and for a card of a model that is not of this class.
    """
    text = _model_argument(name, revision)
    if revision and Path(name).is_dir():
        settings["revision"] = revision
    choice = choose_model(text, "", Assignments(scoped={text: settings}), None)
    own: type[GlimpseModel[Any]] = load_string(choice.spec.model)
    if not issubclass(own, cls):
        raise GlimpseZooError(
            f"{cls.__name__}.from_pretrained expects a card of this model, got {str(name)!r}, a card of {own.__name__}: "
            "use that class, or GlimpseModel"
        )
    model = build_model(choice, choice.own_card.config.task.task())
    assert isinstance(model, cls)
    return model


def _model_argument(name: str | Path, revision: str | None) -> str:
    """The model argument of the commands: the folder of a card, or OWNER/NAME of the Hub with its prefix and revision."""
    if not Path(name).is_dir():
        place = Repository.parse(str(name))
        if place.revision and revision:
            raise GlimpseZooError(f"expected one revision, got {str(name)!r} and revision={revision!r}: leave one of them out")
        return PREFIX + str(Repository.parse(f"{place.name}@{revision}") if revision else place)
    card = Card.read(Path(name))
    if revision and not card.config.released:
        raise GlimpseZooError(f"expected no revision of the folder {str(name)!r}, got revision={revision!r}: leave it out")
    return str(card.folder)


def save_pretrained(self: GlimpseModel[Any], folder: str | Path) -> None:
    """Write a card (README.md, config.json, model.safetensors) into a folder, which `run` and `from_pretrained` take.

    The card keeps the name of the card that the model was loaded from; otherwise it has the folder's name. A card in the folder is
    replaced, together with its evidence. Raises `GlimpseZooError` for a model that no plugin registers.
    """
    _write(self, Path(folder))


def _write(model: GlimpseModel[Any], folder: Path) -> Card:
    check_writable(folder)
    with output_to(folder):
        card = write_card(folder, _config(model, card_name(folder)), model)
        if model.card is not None and card.config.weights != model.card.weights:  # the old record does not describe the new weights
            card = write_config(folder, card.config.model_copy(update={"trained": {}}))
        write_card_readme(card)
    return card


def _config(model: GlimpseModel[Any], name: str) -> CardConfig:
    """The config of a model: from the card that it came from, if any, and from the model itself."""
    settings, task = model.config.model_dump(mode="json"), CardTask.model_validate(vars(model.task))
    if model.card is not None:
        changes = {"config": settings, "task": task, "weights": None, "hub": None}
        return model.card.model_copy(update=changes)
    spec = _spec(model)
    assert spec.provenance is not None
    return CardConfig(
        name=name,
        model=spec.name + str(settings[spec.prefix_key]) if spec.prefix else spec.name,
        plugin=spec.provenance.distribution,
        config=settings,
        task=task,
        data=CardData(name=UNKNOWN),
        weights=None,
        license=UNKNOWN,
    )


def _spec(model: GlimpseModel[Any]) -> ModelSpec:
    """The spec of a model. Raises `GlimpseZooError` if no plugin registers its class."""
    kind = type(model)
    for spec in registry().all(ModelSpec):
        if spec.model == f"{kind.__module__}:{kind.__qualname__}":
            return spec
    raise GlimpseZooError(f"expected a model that an installed plugin registers, got {kind.__name__}: register it (docs/hooks.md)")


def push_to_hub(self: GlimpseModel[Any], repository: str, *, private: bool = False) -> str:
    """Publish the model as a card in `owner/name` on the Hub, in one commit, and return the commit's address.

    A card in the repository stays there as an earlier commit. private: make the repository private. Raises `GlimpseZooError`.
    """
    with tempfile.TemporaryDirectory() as folder:
        card = _write(self, Path(folder, Repository.parse(repository).name.partition("/")[2]))
        return push_card(str(card.folder), repository, private=private, force=True)[1]
