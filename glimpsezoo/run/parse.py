"""Parses `--measure` and `--under` into measures, corruptions and attacks."""

from collections.abc import Iterable, Sequence

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.attacked import AttackWanted, parse_attack
from glimpsezoo.measures.base import Asked, Measure
from glimpsezoo.measures.catalogue import EXITS, PRESETS
from glimpsezoo.measures.corrupted import CorruptionWanted, parse_corruption
from glimpsezoo.specs import AttackSpec, MeasureSpec
from glimpsezoo.zoo.early import check_condition, unknown_measure
from glimpsezoo.zoo.names import Assignments
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.results import measure_class, measure_specs


def scopes() -> list[str]:
    """The prefixes of `--set` keys, apart from models: the data, measures with settings, and attacks."""
    found = [scope for spec in measure_specs() for scope in measure_class(spec).scopes(spec.name, registry())]
    return ["data", *found]


def parse_measures(texts: Iterable[str] | None, sets: Assignments) -> list[Measure]:
    """The measures for the items of `--measure`: measures, presets, corruptions (`fog`, `fog:3`) and attacks (`pgd`, `pgd:4/255:100`).

    texts: None means the default measures. Raises `GlimpseZooError` for unknown names, severities outside 1 to 5, and wrong or unused
    settings.
    """
    specs, explicit = measure_specs(), texts is not None
    given = texts if texts is not None else [spec.name for spec in specs if spec.default]
    claimed: dict[str, list[str]] = {spec.name: [] for spec in specs}
    for text in (each for item in given for each in PRESETS.get(item, (item,))):
        claimed[_taker(text, specs)].append(text)
    found = []
    for spec in specs:
        asked = Asked(spec.name, tuple(claimed[spec.follows or spec.name]), explicit, sets, registry())
        measure = measure_class(spec).of(asked)
        if measure is not None:
            found.append(measure)
    _check_measured(specs, found, sets)
    return found


def _check_measured(specs: Sequence[MeasureSpec], measures: Sequence[Measure], sets: Assignments) -> None:
    """Raise `GlimpseZooError` for a setting of a measure that the run lacks. Any measure that needs exits uses those of exits."""
    used = {measure.name for measure in measures} | {EXITS for measure in measures if measure.uses_exits}
    for spec in specs:
        for scope in measure_class(spec).scopes(spec.name, registry()) if spec.name not in used else ():
            for key in sets.of(scope):
                raise GlimpseZooError(f"--set {scope}.{key} expects {spec.follows or spec.name} to be measured: name it in --measure")


def _taker(text: str, specs: Sequence[MeasureSpec]) -> str:
    """The name of the measure that takes an item. Raises `GlimpseZooError` if none does."""
    for spec in specs:
        if not spec.follows and measure_class(spec).takes(spec.name, text, registry()):
            return spec.name
    raise unknown_measure(text)


def parse_condition(text: str, sets: Assignments) -> CorruptionWanted | AttackWanted:
    """The condition for `--under`: `fog:3`, `pgd:4/255`. The default severity is 3. Raises `GlimpseZooError` for unknown names."""
    check_condition(text)
    if text.partition(":")[0] in {spec.name for spec in registry().all(AttackSpec)}:
        return parse_attack(text, sets, registry())
    return parse_corruption(text if ":" in text else f"{text}:3", registry())
