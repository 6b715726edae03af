"""The built-in data sets, corruptions, attacks, exit rules, policies and measures, registered through the plugin hooks."""

from importlib.metadata import PackageNotFoundError, version

from glimpsezoo.conditions.attacks.catalogue import ATTACKS
from glimpsezoo.conditions.corruptions.catalogue import CORRUPTIONS
from glimpsezoo.data.catalogue import DATASETS
from glimpsezoo.measures.catalogue import MEASURES
from glimpsezoo.specs import AttackSpec, CorruptionSpec, DatasetSpec, ExitRuleSpec, LoggerSpec, MeasureSpec, PolicySpec
from glimpsezoo.zoo.hooks import hookimpl


@hookimpl
def register_datasets() -> list[DatasetSpec]:
    return list(DATASETS)


@hookimpl
def register_corruptions() -> list[CorruptionSpec]:
    return list(CORRUPTIONS)


@hookimpl
def register_attacks() -> list[AttackSpec]:
    return list(ATTACKS)


@hookimpl
def register_exit_rules() -> list[ExitRuleSpec]:
    return [
        ExitRuleSpec(name="fixed", description="Every image takes all steps.", rule="glimpsezoo.core.exits:Fixed"),
        ExitRuleSpec(
            name="confidence",
            description="Exit once the largest class probability reaches a threshold.",
            rule="glimpsezoo.core.exits:Confidence",
        ),
        ExitRuleSpec(
            name="margin",
            description="Exit once the largest class probability is a threshold above the second.",
            rule="glimpsezoo.core.exits:Margin",
        ),
        ExitRuleSpec(
            name="entropy",
            description="Exit once the entropy of the class probabilities falls to a threshold, in nats.",
            rule="glimpsezoo.core.exits:Entropy",
        ),
        ExitRuleSpec(
            name="patience",
            description="Exit once the prediction has stayed the same for a number of further steps.",
            rule="glimpsezoo.core.exits:Patience",
        ),
    ]


@hookimpl
def register_policies() -> list[PolicySpec]:
    def policy(name: str, kind: str, description: str, module: str = "policies") -> PolicySpec:
        return PolicySpec(name=name, description=description, policy=f"glimpsezoo.core.{module}:{kind}")

    return [
        policy("learned", "Learned", "The model's own choice.", "protocol"),
        policy("random", "Random", "A random place at every step."),
        policy("centre", "Centre", "The middle, at every step."),
        policy("scan", "Scan", "The cells of a grid, row by row."),
        policy("whole", "Whole", "The whole image, at every step."),
        policy("whole-then-random", "WholeThenRandom", "The whole image, then random places in random sizes."),
        policy("coarse-to-fine", "CoarseToFine", "The whole image, its quarters, its sixteenths, each level in random order."),
        policy("fine-to-coarse", "FineToCoarse", "The same regions, from the last level to the first."),
        policy("entropy", "LowestEntropy", "Of 9 looks, the one after which the prediction is most certain; all are paid for."),
        policy("saliency", "Saliency", "The place of the highest blurred contrast, then the next one."),
        policy("oracle", "Oracle", "Of 9 looks and the model's own, the one that most raises the right class: an upper bound."),
    ]


@hookimpl
def register_loggers() -> list[LoggerSpec]:
    def logger(name: str, kind: str, description: str) -> LoggerSpec:
        return LoggerSpec(name=name, description=description, logger=f"glimpsezoo.training.loggers:{kind}", unavailable=_without(name))

    return [
        logger("tensorboard", "TensorBoard", "Event files in the training's folder, for TensorBoard."),
        logger("wandb", "Wandb", "A run of Weights & Biases."),
        logger("trackio", "Trackio", "A run of trackio, on this machine."),
    ]


def _without(package: str) -> str:
    """Why a logger cannot be used without its package; '' if that is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return f"the logger {package!r} needs the package {package}, which is not installed: pip install {package}"
    return ""


@hookimpl
def register_measures() -> list[MeasureSpec]:
    return list(MEASURES)
