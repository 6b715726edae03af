"""Looks up the names in a command before torch is imported, so that a typing error is answered at once.

The commands look them up again when they run: here, only what cannot be right is refused, in the same words.
"""

from collections.abc import Iterable

from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.measures.catalogue import PRESETS
from glimpsezoo.settings import Settings
from glimpsezoo.specs import AttackSpec, CorruptionSpec, ImporterSpec, MeasureSpec, ModelSpec, PaperSpec, load_string
from glimpsezoo.zoo.arguments import split_argument
from glimpsezoo.zoo.cards import Card, card_paths, find_card
from glimpsezoo.zoo.hub import PREFIX
from glimpsezoo.zoo.names import Assignments, argument_names, card_named, data_spec, declared_settings, spec_of
from glimpsezoo.zoo.own_data import NO_CARD
from glimpsezoo.zoo.plugins import registry, usable


def check_names(
    models: Iterable[str],
    *,
    data: str | None = None,
    checkpoint: str | None = None,
    sets: Iterable[str] = (),
    measures: Iterable[str] = (),
    under: str | None = None,
) -> None:
    """Look up the models, data, card and measures of a command, and the keys of its `--set`. Raises `GlimpseZooError`.

    Cards on the Hub are left out, and so are settings of measures and attacks, which declare them beside their code.
    """
    for text in measures:
        check_measure(text)
    if under is not None:
        check_condition(under)
    if data is not None:
        data_spec(data)
    arguments = {model: split_argument(model) for model in models}
    names = [name for name, _ in arguments.values()]
    local = [name for name in names if not name.startswith(PREFIX)]
    for argument, (name, own) in arguments.items():
        if name in local:
            load_string(spec_of(name, find_card(name)).config).check_keys(own, owner=argument)
    if checkpoint is not None and checkpoint not in NO_CARD and not checkpoint.startswith(PREFIX) and local:
        card_named(checkpoint)
    if local == names:
        check_keys(local, data, Assignments.parse(sets, argument_names(local)))


def check_keys(models: list[str], data: str | None, given: Assignments) -> None:
    """Look up the keys of models and data. Raises `GlimpseZooError`."""
    if data is not None:
        schema: type[Settings] = load_string(data_spec(data).config)
        schema.check_keys(given.of("data"), owner="data")
    for name in models:
        schema = load_string(spec_of(name, find_card(name)).config)
        for own in argument_names([name]):
            schema.check_keys(given.scoped.get(own, {}), owner=name)
    plain = {key: value for key, value in given.shared.items() if "." not in key}  # the others may be of a measure or an attack
    if models:
        Assignments(shared=plain).check_all_declared({name: declared_settings(name) for name in models})


def measure_names() -> list[str]:
    """What `--measure` takes by itself: the measures that users can ask for, what else they answer to, and the presets."""
    specs = [spec for spec in registry().all(MeasureSpec) if not spec.follows]
    return [*(spec.name for spec in specs), *(name for spec in specs for name in spec.also), *PRESETS]


def condition_names() -> list[str]:
    """The corruptions and the attacks."""
    return [spec.name for kind in (CorruptionSpec, AttackSpec) for spec in registry().all(kind)]


def check_measure(text: str) -> None:
    """Raise `GlimpseZooError` for an item of `--measure` that no measure can take."""
    if text.partition(":")[0] not in {*measure_names(), *condition_names()}:
        raise unknown_measure(text)


def unknown_measure(text: str) -> GlimpseZooError:
    """The error for an item of `--measure` that no measure takes."""
    asked = [spec.name for spec in registry().all(MeasureSpec) if not spec.follows]
    hint = did_you_mean(text.partition(":")[0], [*measure_names(), *condition_names()])
    return GlimpseZooError(f"--measure expects any of {', '.join([*asked, *PRESETS, 'a corruption', 'an attack'])}, got {text!r}: {hint}")


def check_condition(text: str) -> None:
    """Raise `GlimpseZooError` unless `--under` names a corruption or an attack."""
    name, known = text.partition(":")[0], condition_names()
    if name not in known:
        raise GlimpseZooError(f"expected a corruption (fog:3) or an attack (pgd:4/255), got {text!r}: {did_you_mean(name, known)}")


def known_card(name: str) -> Card:
    """The card of this name or path. Raises `GlimpseZooError` if there is none."""
    card = find_card(name)
    if card is None:
        raise GlimpseZooError(f"expected a card, got {name!r}: {did_you_mean(name, card_paths())}")
    return card


def check_papers(names: Iterable[str]) -> list[Card]:
    """The cards among the arguments of `compare --paper`. Raises `GlimpseZooError` for one that is neither a paper nor a card."""
    papers = [spec.name for spec in registry().all(PaperSpec)]
    cards = []
    for name in names:
        if name not in papers:
            card = find_card(name)
            if card is None:
                raise GlimpseZooError(f"expected a paper or a card, got {name!r}: {did_you_mean(name, papers)}")
            cards.append(card)
    return cards


def check_import(model: str, data: str | None, sets: Iterable[str]) -> None:
    """Look up the model and the data of `import`, and the keys of the data's settings. Raises `GlimpseZooError`."""
    usable(registry().find(ModelSpec, model))
    importer_of(model)
    check_keys([], data, Assignments.parse(sets, [model]))


def importer_of(model: str) -> ImporterSpec:
    """The importer of a model. Raises `GlimpseZooError` if it has none."""
    found = [spec for spec in registry().all(ImporterSpec) if spec.name == model or (spec.prefix and model.startswith(spec.name))]
    if not found:
        raise GlimpseZooError(
            f"expected a model of which files of weights can be read ('glimpsezoo list importers'), got {model!r}: "
            "name a card of it by --checkpoint, or write an importer (docs/importing.md)"
        )
    return registry().find(ImporterSpec, model)
