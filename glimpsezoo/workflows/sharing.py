"""Cards between this machine and the Hub: pull and push, and `from_pretrained`, `save_pretrained` and `push_to_hub` of every model."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from glimpsezoo.cards import (
    CONFIG,
    HISTORY,
    README,
    RESULT,
    ROWS,
    UNKNOWN,
    Card,
    CardConfig,
    CardData,
    CardTask,
    card_paths,
    file_name,
    find_card,
    write_card,
    write_config,
)
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.files import user_folder
from glimpsezoo.hub import PREFIX, Repository, fetch_if_there, publish
from glimpsezoo.plugins import registry
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.reports import card_text, evidence, write_card_readme
from glimpsezoo.resolve import Assignments, build_model, choose_model, spec_of
from glimpsezoo.specs import ModelSpec, load_string
from glimpsezoo.workflows.output import check_writable, unwritable

BESIDE = (RESULT, ROWS, *HISTORY)  # what a card may have beside its config and weights; its README is made anew
M = TypeVar("M", bound=GlimpseModel[Any])


def pull(name: str, output: Path | None, *, force: bool = False) -> Card:
    """Copy a card from the Hub (`hf-hub:OWNER/NAME[@REVISION]`) into a folder, by default one of the user's where its name finds it.

    Nothing is written before all of it is here and the weights are those that its config names. Raises `GlimpseZooError`.
    """
    place = Repository.parse(name)
    card = Card.of_hub(place).located()
    assert card.origin is not None
    folder = output or user_folder() / "cards" / file_name(card.name)
    _check_free(card, folder, named=output is None, force=force)
    check_writable(folder)
    card.weights()
    beside = {file: fetch_if_there(card.origin, file) for file in BESIDE}
    try:
        return _copied(card, beside, folder)
    except OSError as error:
        raise unwritable(folder, error) from None


def _check_free(card: Card, folder: Path, *, named: bool, force: bool) -> None:
    """Refuse a folder with a card, and, where names are looked for, a name that another card has."""
    if force:
        return
    if (folder / CONFIG).exists():
        raise GlimpseZooError(
            f"expected an output folder without a card, got {str(folder)!r} with one: choose another --output, or --force to replace it"
        )
    if named and folder.name in card_paths():
        raise GlimpseZooError(
            f"expected a card of a new name, got {card.name!r}, which {str(card_paths()[folder.name])!r} has: "
            "give it a folder by --output, or --force to put it before that one"
        )


def _copied(card: Card, beside: Mapping[str, Path | None], folder: Path) -> Card:
    """The card's files in a folder of their own; the config, which makes it a card and says where it came from, comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    assert card.config.weights is not None
    for old in (CONFIG, *BESIDE):
        (folder / old).unlink(missing_ok=True)
    for name, source in {card.config.weights.file: card.weights_file(), **beside}.items():
        if source is not None:
            part = folder / f".{name}.part"
            try:
                shutil.copyfile(source, part)
                part.replace(folder / name)
            finally:
                part.unlink(missing_ok=True)
    copy = write_config(folder, card.config.model_copy(update={"hub": str(card.origin)}))
    write_card_readme(copy)
    return copy


def missing_plugin(card: Card) -> str | None:
    """What keeps a card's model from being built here, and the remedy; None where its plugin is installed."""
    try:
        spec_of(card.name, card)
    except GlimpseZooError as error:
        return str(error)
    return None


def push(name: str, repository: str, *, private: bool = False, force: bool = False) -> tuple[Card, str]:
    """Publish a card, by its name or folder, as OWNER/NAME on the Hub; returns the card as it is there, and the commit's address.

    The README.md is made from the card's result.json, never taken as it lies there. private: as a private repository. force: also into
    a repository that holds a card. Raises `GlimpseZooError`.
    """
    place = Repository.parse(repository)
    if place.revision:
        raise GlimpseZooError(f"expected OWNER/NAME to publish to, got {repository!r}: leave the revision out")
    card = find_card(name)
    if card is None:
        raise GlimpseZooError(f"expected a card, got {name!r}: {did_you_mean(name, card_paths())}")
    card = card.located()
    _check_fits(card)
    assert card.config.weights is not None
    public = Card(card.folder, card.config.model_copy(update={"hub": place.name}))
    result = evidence(public)
    files: dict[str, Path | bytes] = {
        README: card_text(public, result).encode(),
        CONFIG: public.config.to_json(),
        card.config.weights.file: card.weights_file(),
    }
    beside = BESIDE if result else HISTORY  # what was measured with other weights is no evidence
    files |= {file: card.folder / file for file in beside if (card.folder / file).is_file()}
    return public, publish(place, files, private=private, replacing=force)


def _check_fits(card: Card) -> None:
    """See that the weights are those of the card's model, before others have them."""
    spec = spec_of(card.name, card)
    kind, schema = load_string(spec.model), load_string(spec.config)
    card.load_into(kind(schema.parse(card.config.config, owner=card.name), card.config.task.task()), changed={})


def from_pretrained(kind: type[M], name: str | Path, revision: str | None, settings: Mapping[str, Any]) -> M:
    """See `GlimpseModel.from_pretrained`."""
    text = _argument(name, revision)
    choice = choose_model(text, "", Assignments(scoped={text: dict(settings)}), None)
    assert choice.card is not None  # or it would have raised
    own: type[GlimpseModel[Any]] = load_string(choice.spec.model)
    if not issubclass(own, kind):
        raise GlimpseZooError(
            f"{kind.__name__}.from_pretrained expects a card of its own model, got {str(name)!r}, which is one of {own.__name__}: "
            "use that class, or GlimpseModel"
        )
    model = build_model(choice, choice.card.config.task.task())
    assert isinstance(model, kind)
    return model


def _argument(name: str | Path, revision: str | None) -> str:
    """As the commands name it: a card's folder as it is, OWNER/NAME of the Hub with its prefix and revision."""
    if not Path(name).is_dir():
        place = Repository.parse(str(name))
        if place.revision and revision:
            raise GlimpseZooError(f"expected one revision, got {str(name)!r} and revision={revision!r}: leave one of them out")
        return PREFIX + str(Repository.parse(f"{place.name}@{revision}") if revision else place)
    if revision:
        raise GlimpseZooError(f"expected a revision of the Hub, got revision={revision!r} of the folder {str(name)!r}: leave it out")
    return str(Card.read(Path(name)).folder)


def save_pretrained(model: GlimpseModel[Any], folder: Path) -> Card:
    """See `GlimpseModel.save_pretrained`. The card keeps the name of the one that it came from; a new one has its folder's."""
    check_writable(folder)
    try:
        card = write_card(folder, _config(model, folder.resolve().name), model)
        if model.card is not None and card.config.weights != model.card.weights:  # trained on, in a way that its card does not tell
            card = write_config(folder, card.config.model_copy(update={"trained": {}}))
        write_card_readme(card)
    except OSError as error:
        raise unwritable(folder, error) from None
    return card


def _config(model: GlimpseModel[Any], name: str) -> CardConfig:
    """The config of a model: what the card said that it came from, if any, and what the model itself knows."""
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
    """The spec that builds models of this class."""
    kind = type(model)
    for spec in registry().all(ModelSpec):
        if spec.model == f"{kind.__module__}:{kind.__qualname__}":
            return spec
    raise GlimpseZooError(f"expected a model that an installed plugin registers, got {kind.__name__}: register it (docs/hooks.md)")


def push_to_hub(model: GlimpseModel[Any], repository: str, private: bool) -> str:
    """See `GlimpseModel.push_to_hub`. A card that is there becomes an earlier commit."""
    with tempfile.TemporaryDirectory() as folder:
        card = save_pretrained(model, Path(folder, Repository.parse(repository).name.partition("/")[2]))
        return push(str(card.folder), repository, private=private, force=True)[1]
