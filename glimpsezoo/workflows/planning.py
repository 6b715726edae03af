"""What a run has to do, as a list of evaluations: clean, at exits, under corruptions, under attacks."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from glimpsezoo.anytime import Calibration
from glimpsezoo.attacks.base import Attack
from glimpsezoo.attacks.masking import CURVE
from glimpsezoo.attacks.settings import AttackSettings, MaskingSettings
from glimpsezoo.conditions import Clean, Condition, Remembered
from glimpsezoo.corruptions.condition import Corruption
from glimpsezoo.corruptions.presets import preset_for
from glimpsezoo.corruptions.published import CorruptedFolders
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import Held, limited
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import Job
from glimpsezoo.exits import ExitRule, Fixed
from glimpsezoo.measures import AttackWanted, Measures
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import JUDGED
from glimpsezoo.specs import load_string

EVALUATIONS = 5  # noises that a stochastic model is judged with under attack, unless a setting says otherwise
BACKWARD = 2.0  # what a gradient costs beside the pass it belongs to


@dataclass(frozen=True)
class Planned:
    """One evaluation of a run. key: how it is found again. label: what the user reads. passes: its cost an image, in forward passes.

    seed: of the model's noise. last_of: what keeps images that nobody needs after this one.
    """

    index: int
    measure: str
    key: Hashable
    label: str
    job: Job
    passes: float = 1.0
    seed: int = 0
    last_of: Remembered | Held | None = None

    @property
    def forward_images(self) -> float:
        return self.passes * len(self.job.data)


@dataclass(frozen=True)
class Subjects:
    """The models of a run with their names, the data, and the fewer images that corruptions and attacks are measured on.

    published: folders of images that somebody else corrupted, which then take the place of our corruptions.
    """

    models: Sequence[GlimpseModel]
    names: Sequence[str]
    data: ImageData
    few: ImageData
    seed: int
    published: CorruptedFolders | None = None

    def job(self, index: int, data: ImageData, condition: Condition | None = None, rule: ExitRule | None = None) -> Job:
        return Job(self.models[index], self.names[index], data, condition or Clean(), rule or Fixed())


def clean_plan(subjects: Subjects) -> Iterator[Planned]:
    """Every model on all images as they are."""
    for index in range(len(subjects.models)):
        yield Planned(index, "accuracy", "clean", "clean", subjects.job(index, subjects.data), seed=subjects.seed)


def anytime_plan(subjects: Subjects, index: int, rules: Sequence[ExitRule]) -> Iterator[Planned]:
    """One model under every rule of its curve."""
    for rule in rules:
        threshold = rule.parameters["threshold"]
        label = f"{rule.name} {threshold:.3g}"
        yield Planned(index, "anytime", ("exit", threshold), label, subjects.job(index, subjects.data, None, rule), seed=subjects.seed)


def corruption_plan(subjects: Subjects, measures: Measures) -> Iterator[Planned]:
    """Corruption after corruption, each for all models: its images are made once, and are gone when the next ones are made.

    Published images are read as they are, the same few of every corruption, and once for several models.
    """
    models = range(len(subjects.models))
    for wanted in measures.corruptions:
        for severity in wanted.severities:
            data, condition, kept = subjects.few, None, None
            if subjects.published is None:
                condition = kept = Remembered(Corruption(wanted.spec, severity, data.task.image_size, subjects.seed))
            else:
                data = limited(subjects.published.open(wanted.spec.name, severity), len(subjects.few))
                if len(models) > 1:
                    data = kept = Held(data)
            for index in models:
                yield Planned(
                    index,
                    "corruptions",
                    ("corruption", wanted.spec.name, severity),
                    f"{wanted.spec.name} {severity}",
                    subjects.job(index, data, condition),
                    seed=subjects.seed,
                    last_of=kept if index == models[-1] else None,
                )


def made_with(corrupted: Sequence[Planned], published: CorruptedFolders | None) -> tuple[tuple[str, ...], str]:
    """Who computed the corruptions, and the preset of their constants."""
    if not corrupted:
        return (), ""
    if published is not None:
        return (f"published images in {published.path.resolve().name}",), "published"
    conditions = [planned.job.condition for planned in corrupted]
    parts = [part for each in conditions for part in each.implementation.split(", ")]
    return tuple(dict.fromkeys(parts)), conditions[0].parameters["preset"]


def corruptions_apply(data: ImageData) -> bool:
    """Whether images of this size have a preset."""
    try:
        preset_for(*data.task.image_size)
    except GlimpseZooError:
        return False
    return True


def without_thresholds(measures: Measures, error: GlimpseZooError) -> str:
    """The note of a run that can find no thresholds. Raises `GlimpseZooError` if the user named what needs them.

    error: why it cannot.
    """
    named = measures.asked and "anytime" in measures.sections
    attacks = [wanted.spec.name for wanted in measures.attacks if wanted.named and wanted.settings.model_dump().get("target") == "exit"]
    if named or (attacks and measures.anytime.threshold is None):
        what = "anytime" if named else attacks[0]
        raise GlimpseZooError(f"{what} needs thresholds of early exits: {error}; or measure without exits (--measure quick)") from None
    return f"no thresholds of early exits, and so no anytime curve: {error}"


def built_attack(wanted: AttackWanted, name: str, model: GlimpseModel, rule: ExitRule | None) -> Attack:
    """The attack for a model. Raises `GlimpseZooError` if it does not suit it.

    A stochastic model is judged over `EVALUATIONS` runs unless the settings say otherwise.
    """
    settings = wanted.settings.model_copy(update={"evaluations": evaluations_of(wanted.settings, model)})
    attack = load_string(wanted.spec.attack)(settings, rule)
    try:
        attack.check(model)
    except GlimpseZooError as error:
        raise GlimpseZooError(f"{name}: {error}") from None
    return attack


def evaluations_of(settings: AttackSettings, model: GlimpseModel) -> int:
    """How many runs of each attacked image are measured."""
    return settings.evaluations or (EVALUATIONS if model.stochastic else 1)


def comparable(attack: Attack) -> bool:
    """Whether the verdict on attacks can be about this one: on the label, at the last step, in Linf on pixels."""
    settings = attack.settings
    return (settings.norm, settings.space, settings.target, settings.path) == JUDGED


def attack_plan(subjects: Subjects, index: int, attacks: Sequence[Attack]) -> Iterator[Planned]:
    """One model under its attacks, each evaluated as often as its settings say; and under its exit rule without them, to compare."""
    rules = {}
    for place, attack in enumerate(attacks):
        rule = attack.exit_rule if attack.attacks_the_exit else None
        condition: Condition = Remembered(attack) if attack.evaluations > 1 else attack
        for run in range(attack.evaluations):
            job = subjects.job(index, subjects.few, condition, rule)
            yield Planned(
                index,
                "attacks",
                ("attack", place, run),
                attack.name,
                job,
                passes=1 + (attack_passes(attack) if run == 0 else 0),
                seed=subjects.seed + run,
                last_of=condition if isinstance(condition, Remembered) and run == attack.evaluations - 1 else None,
            )
        if rule is not None:
            rules[rule.parameters["threshold"]] = rule
    for threshold, rule in rules.items():
        job = subjects.job(index, subjects.few, None, rule)
        yield Planned(index, "attacks", ("exit-clean", threshold), "exits", job, seed=subjects.seed)


def attack_passes(attack: Attack) -> float:
    """What an attack costs an image, in forward passes."""
    settings, gradient = attack.settings, 0.0 if attack.name == "square" else BACKWARD
    return settings.steps * settings.restarts * settings.eot * (1 + gradient)


def verdict_passes(settings: MaskingSettings, model: GlimpseModel, reported: Attack | None) -> float:
    """What the verdict on attacks costs an image, in forward passes; its few derivatives are not counted."""
    ascents = (len(CURVE) + 1) * settings.steps + (settings.strong_steps if reported else 0)  # at every eps, the huge one, the reported
    runs = settings.eot if model.stochastic else 1
    searched = runs * (ascents * (1 + BACKWARD) + settings.queries)
    return searched + (attack_passes(reported) if reported else 0)


def rule_for_attacks(found: Calibration, chosen: float | None) -> ExitRule | None:
    """The exit rule that attacks on exits are measured under: at `chosen`, or at the cheapest threshold that loses no accuracy.

    That is no accuracy of taking every step, on the calibration split; where every threshold loses some, the dearest one. None where
    no threshold lets any image exit.
    """
    if chosen is not None:
        return found.rule(chosen)
    try:
        return found.rule(found.reaching(float(found.hits[:, -1].mean())))
    except GlimpseZooError:
        tried = found.candidates()
        return found.rule(tried[-1]) if tried else None
