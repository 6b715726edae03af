"""From the texts of `--measure` and `--under` to what is measured: sections, corruptions at severities, attacks with their settings."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field, model_validator

from glimpsezoo.attacks.settings import AttackSettings, MaskingSettings
from glimpsezoo.errors import GlimpseZooError, counted, did_you_mean
from glimpsezoo.exits import ThresholdRule
from glimpsezoo.plugins import registry
from glimpsezoo.resolve import Assignments
from glimpsezoo.settings import Settings
from glimpsezoo.specs import AttackSpec, CorruptionSpec, ExitRuleSpec, load_string

SECTIONS = ("accuracy", "flops", "anytime", "corruptions", "attacks", "speed")
DEFAULT = ("accuracy", "flops", "anytime", "corruptions", "attacks")
SEVERITIES = (1, 2, 3, 4, 5)
STANDARD_ATTACKS = ("pgd",)
STRONGER_ATTACKS = ("apgd-ce", "apgd-dlr", "square", "slowdown")
PRESETS = {
    "quick": ("accuracy", "flops"),
    "robustness": ("corruptions", "attacks"),
    "full": (*DEFAULT, "extra-corruptions", "stronger-attacks"),
}


class AnytimeSettings(Settings):
    """`--set anytime.KEY`: the exit rule, and where its thresholds lie. All are found on the calibration split but `threshold`.

    points: how many thresholds the curve has, their costs evenly spread. accuracy, macs, threshold: one more point, and the run that
    attacks on exits are measured under: the cheapest threshold of that top-1 accuracy in [0, 1], the most accurate within that many
    MACs an image, or that threshold itself.
    """

    rule: str = Field("confidence", description="an exit rule with a threshold: see 'glimpsezoo list exit-rules'")
    points: int = Field(5, ge=1, le=100, description="thresholds of the curve")
    accuracy: float | None = Field(None, ge=0, le=1, description="top-1 accuracy on the calibration split that one more point is to reach")
    macs: float | None = Field(None, gt=0, description="MACs an image that one more point may take")
    threshold: float | None = Field(None, description="the threshold of one more point")

    @model_validator(mode="after")
    def _one_target(self) -> "AnytimeSettings":
        given = [key for key in ("accuracy", "macs", "threshold") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"expected one of accuracy, macs and threshold, got {' and '.join(given)}: name one target")
        return self


class CorruptionSettings(Settings):
    """`--set corruptions.KEY`."""

    baseline: str | None = Field(None, description="what mCE is relative to: a model of this run, a result.json, or 'alexnet'")


@dataclass(frozen=True)
class CorruptionWanted:
    """A corruption, and at which severities."""

    spec: CorruptionSpec
    severities: tuple[int, ...] = SEVERITIES


@dataclass(frozen=True)
class AttackWanted:
    """An attack with its settings. named: by the user, so that a model which it does not suit is an error and no omission."""

    spec: AttackSpec
    settings: AttackSettings
    named: bool


@dataclass(frozen=True)
class Measures:
    """What a run measures. sections: of result.json. asked: by the user, not by default."""

    sections: frozenset[str]
    corruptions: tuple[CorruptionWanted, ...]
    attacks: tuple[AttackWanted, ...]
    anytime: AnytimeSettings
    masking: MaskingSettings
    baseline: str | None
    asked: bool

    @property
    def texts(self) -> list[str]:
        """In words, in the order of result.json."""
        found = [section for section in SECTIONS if section in self.sections and section not in ("corruptions", "attacks")]
        if self.corruptions:
            names = [wanted.spec.name for wanted in self.corruptions]
            severities = sum(len(wanted.severities) for wanted in self.corruptions)
            what = counted(len(names), "corruption") if len(names) > 1 else names[0]
            found.append(f"{what} ({counted(severities, 'condition')})")
        times = Counter(wanted.spec.name for wanted in self.attacks)
        return [*found, *(name if count == 1 else f"{name} ({count} budgets)" for name, count in times.items())]


SCOPES = ("data", "anytime", "corruptions", "attacks", "masking")


def scopes() -> list[str]:
    """What a `--set` key may begin with, beside the models: the sections that have settings, and every attack."""
    return [*SCOPES, *(spec.name for spec in registry().all(AttackSpec))]


def parse_measures(texts: Iterable[str] | None, sets: Assignments) -> Measures:
    """What `--measure` names: sections, presets, corruptions (`fog`, `fog:3`) and attacks (`pgd`, `pgd:4/255:100`). None: the default.

    Raises `GlimpseZooError` for unknown names, severities outside 1 to 5, and settings that are wrong or that nothing takes.
    """
    asked = texts is not None
    sections: set[str] = set()
    corruptions: dict[str, CorruptionWanted] = {}
    attacks: list[AttackWanted] = []
    given = texts if texts is not None else DEFAULT
    for text in (each for preset in given for each in PRESETS.get(preset, (preset,))):
        name = text.partition(":")[0]
        if text in ("accuracy", "flops", "anytime", "speed"):
            sections.add(text)
        elif text in ("corruptions", "extra-corruptions"):
            wanted = [spec for spec in registry().all(CorruptionSpec) if spec.benchmark == (text == "corruptions")]
            corruptions |= {spec.name: CorruptionWanted(spec) for spec in wanted}
        elif text in ("attacks", "stronger-attacks"):
            wanted = STANDARD_ATTACKS if text == "attacks" else STRONGER_ATTACKS
            attacks += [_attack(each, {}, sets, named=False) for each in wanted]
        elif name in _names(CorruptionSpec):
            found = parse_corruption(text)
            before = corruptions[name].severities if name in corruptions else ()
            corruptions[name] = CorruptionWanted(found.spec, tuple(sorted({*before, *found.severities})))
        elif name in _names(AttackSpec):
            attacks.append(parse_attack(text, sets))
        else:
            raise GlimpseZooError(f"--measure expects any of {', '.join(_choices())}, got {text!r}: {did_you_mean(name, _all_names())}")
    sections |= ({"corruptions"} if corruptions else set()) | ({"attacks"} if attacks else set())
    attacks = _each_once(attacks)
    _check_used(sets, attacks)
    baseline = CorruptionSettings.parse(sets.of("corruptions"), owner="corruptions").baseline
    if baseline is not None:
        _check_benchmark_whole(corruptions)
    return Measures(
        sections=frozenset(sections),
        corruptions=tuple(corruptions.values()),
        attacks=tuple(attacks),
        anytime=_anytime(sets),
        masking=MaskingSettings.parse(sets.of("masking"), owner="masking"),
        baseline=baseline,
        asked=asked,
    )


def parse_condition(text: str, sets: Assignments) -> CorruptionWanted | AttackWanted:
    """What `--under` names: `fog:3`, `pgd:4/255`. Raises `GlimpseZooError`; a corruption without a severity has the third."""
    name = text.partition(":")[0]
    if name in _names(AttackSpec):
        return parse_attack(text, sets)
    if name in _names(CorruptionSpec):
        return parse_corruption(text if ":" in text else f"{text}:3")
    known = [*_names(CorruptionSpec), *_names(AttackSpec)]
    raise GlimpseZooError(f"expected a corruption (fog:3) or an attack (pgd:4/255), got {text!r}: {did_you_mean(name, known)}")


def parse_corruption(text: str) -> CorruptionWanted:
    """`fog` at all severities, or `fog:3`."""
    name, colon, severity = text.partition(":")
    spec = registry().find(CorruptionSpec, name)
    if not colon:
        return CorruptionWanted(spec)
    if severity not in map(str, SEVERITIES):
        raise GlimpseZooError(f"{name} expects a severity from 1 to 5, got {severity!r}: write {name}:3, say")
    return CorruptionWanted(spec, (int(severity),))


def parse_attack(text: str, sets: Assignments) -> AttackWanted:
    """`pgd`, `pgd:4/255` for another eps, or `pgd:4/255:100` for a number of steps as well."""
    name, *budget = text.split(":")
    if len(budget) > 2:
        raise GlimpseZooError(f"{name} expects an eps and a number of steps, got {text!r}: write {name}:4/255:100, say")
    return _attack(name, dict(zip(("eps", "steps"), budget, strict=False)), sets, named=True)


def _attack(name: str, budget: Mapping[str, str], sets: Assignments, *, named: bool) -> AttackWanted:
    """With its own budget, what `--set NAME.KEY` says to it, and `--set attacks.KEY` to all attacks that know the key, in this order."""
    spec = registry().find(AttackSpec, name)
    schema: type[AttackSettings] = load_string(spec.config)
    shared = {key: value for key, value in sets.of("attacks").items() if key in schema.model_fields}
    return AttackWanted(spec, schema.parse({**shared, **sets.of(name), **budget}, owner=name), named)


def _each_once(attacks: Iterable[AttackWanted]) -> list[AttackWanted]:
    """Those that differ; one that was named counts as named. Naming an attack takes the place of a preset's of that name."""
    attacks = list(attacks)
    own = {wanted.spec.name for wanted in attacks if wanted.named}
    found = {(w.spec.name, w.settings): w for w in attacks if w.named or w.spec.name not in own}
    return list(found.values())


def _check_used(sets: Assignments, attacks: Sequence[AttackWanted]) -> None:
    """A setting that no attack of the run takes is a mistake."""
    names = list(dict.fromkeys(wanted.spec.name for wanted in attacks))
    known = {key for wanted in attacks for key in type(wanted.settings).model_fields}
    for key in sets.of("attacks"):
        if key not in known:
            who = ", ".join(names) or "an attack"
            raise GlimpseZooError(f"--set attacks.{key} expects a setting of {who}: {did_you_mean(key, known)}")
    for name in _names(AttackSpec):
        if sets.of(name) and name not in names:
            raise GlimpseZooError(f"--set {name}.{next(iter(sets.of(name)))} expects {name} to be measured: name it in --measure")


def _check_benchmark_whole(corruptions: Mapping[str, CorruptionWanted]) -> None:
    """A baseline is for mCE, which is no number unless all of the benchmark is measured."""
    benchmark = [spec.name for spec in registry().all(CorruptionSpec) if spec.benchmark]
    whole = [name for name in benchmark if name in corruptions and corruptions[name].severities == SEVERITIES]
    if len(whole) < len(benchmark):
        raise GlimpseZooError(
            f"--set corruptions.baseline expects all {len(benchmark)} corruptions of the benchmark at every severity, for mCE is over all "
            f"of them, got {len(whole)}: add corruptions to --measure, or leave the baseline out"
        )


def _anytime(sets: Assignments) -> AnytimeSettings:
    settings = AnytimeSettings.parse(sets.of("anytime"), owner="anytime")
    spec = registry().find(ExitRuleSpec, settings.rule)
    if not issubclass(load_string(spec.rule), ThresholdRule):
        raise GlimpseZooError(f"anytime.rule expects a rule with a threshold, got {settings.rule!r}: try confidence")
    return settings


def _names(kind: type) -> list[str]:
    return [spec.name for spec in registry().all(kind)]


def _choices() -> list[str]:
    return [*SECTIONS, *PRESETS, "a corruption", "an attack"]


def _all_names() -> list[str]:
    return [*SECTIONS, *PRESETS, *_names(CorruptionSpec), *_names(AttackSpec)]
