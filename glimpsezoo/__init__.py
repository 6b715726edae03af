"""Glimpse models and one way to measure them all.

    import glimpsezoo as gz

    model = gz.load("mgnet.digits")
    model.predict("seven.png")
    with gz.inference(model):
        trace = gz.rollout(model, images)

The public names stand below in the order in which people need them: first for those who use models, then for those who write a plugin.
Plugins import from `glimpsezoo` alone; their tests also from `glimpsezoo.testing`, the conformance suite.

Importing this package loads neither torch nor timm nor datasets: a public name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # For users: load, run and measure models
    from glimpsezoo.api import EvaluationResult, evaluate, open_data, predict, transform_of
    from glimpsezoo.core.exits import Confidence, Entropy, Fixed, Margin, Patience
    from glimpsezoo.core.inference import inference
    from glimpsezoo.core.rollout import Classified, Record, Trace, rollout
    from glimpsezoo.core.stream import RolloutStream
    from glimpsezoo.data.preprocessing import Preprocessing, Window
    from glimpsezoo.errors import GlimpseZooError
    from glimpsezoo.workflows.exporting import Exported, export
    from glimpsezoo.workflows.predicting import Guess, Prediction
    from glimpsezoo.zoo.models import create_model, list_models, load

    # isort: split
    # For authors of plugins
    from glimpsezoo.zoo.hooks import hookimpl

    # isort: split
    # For authors of models
    from glimpsezoo.api import FeedForward, GlimpseModel
    from glimpsezoo.core.batched import Batched, join_rows, rows_of_each, select_rows
    from glimpsezoo.core.feedforward import FeedForwardState, Normalise, cross_entropy_step
    from glimpsezoo.core.macs import Meter, count_macs
    from glimpsezoo.core.noise import Noise
    from glimpsezoo.core.protocol import PaperMacs, Phase, State
    from glimpsezoo.core.regions import Decision, Made, Regions
    from glimpsezoo.core.senses import bilinear_crop, crop, grid_crop, resample, retina, straight_through_crop, thumbnail
    from glimpsezoo.core.symbolic import exporting
    from glimpsezoo.errors import did_you_mean
    from glimpsezoo.settings import Settings
    from glimpsezoo.specs import ImporterSpec, ModelSpec, PaperSpec, Task
    from glimpsezoo.training.job import TrainingPhase
    from glimpsezoo.training.reinforce import monte_carlo, reinforce, returns, standardised
    from glimpsezoo.zoo.card_config import Published, PublishedExits
    from glimpsezoo.zoo.checkpoints import Released, read_checkpoint
    from glimpsezoo.zoo.policies import PolicyName, find_policy

    # isort: split
    # For authors of exit rules
    from glimpsezoo.core.exits import ExitRule, ThresholdRule, budget_thresholds
    from glimpsezoo.specs import ExitRuleSpec

    # isort: split
    # For authors of policies
    from glimpsezoo.core.protocol import Policy
    from glimpsezoo.specs import PolicySpec

    # isort: split
    # For authors of data
    from glimpsezoo.data.base import BadImageError, DataInfo, Example, ImageData
    from glimpsezoo.data.config import DataSettings, SizedSettings
    from glimpsezoo.specs import DatasetSpec

    # isort: split
    # For authors of corruptions, and of any other condition on images
    from glimpsezoo.conditions.base import Clean, Condition
    from glimpsezoo.specs import CorruptionSpec

    # isort: split
    # For authors of attacks: the base, and the parts of an attack that follows the gradient
    from glimpsezoo.conditions.attacks.ball import direction, project, random_start
    from glimpsezoo.conditions.attacks.base import Attack, keep_better
    from glimpsezoo.conditions.attacks.settings import AttackSettings
    from glimpsezoo.conditions.attacks.victim import Victim, cross_entropy, probe
    from glimpsezoo.specs import AttackSpec

    # isort: split
    # For authors of loggers
    from glimpsezoo.specs import LoggerSpec
    from glimpsezoo.training.loggers import TrainingLogger

    # isort: split
    # For authors of measures
    from glimpsezoo.evaluation.plan import PlannedEvaluation, PlannedFinding, evaluation_of
    from glimpsezoo.measures.base import Bench, Measure
    from glimpsezoo.measures.shown import Cell, Column, Figure, Table
    from glimpsezoo.schema import Section
    from glimpsezoo.specs import MeasureSpec

_EXPORTS: dict[str, dict[str, tuple[str, ...]]] = {
    "users": {
        "glimpsezoo.zoo.models": ("list_models", "load", "create_model"),
        "glimpsezoo.api": ("predict", "transform_of", "open_data", "evaluate", "EvaluationResult"),
        "glimpsezoo.workflows.predicting": ("Prediction", "Guess"),
        "glimpsezoo.data.preprocessing": ("Window", "Preprocessing"),
        "glimpsezoo.core.rollout": ("rollout", "Trace", "Record", "Classified"),
        "glimpsezoo.core.stream": ("RolloutStream",),
        "glimpsezoo.core.inference": ("inference",),
        "glimpsezoo.workflows.exporting": ("export", "Exported"),
        "glimpsezoo.core.exits": ("Fixed", "Confidence", "Margin", "Entropy", "Patience"),
        "glimpsezoo.errors": ("GlimpseZooError",),
    },
    "authors of plugins": {
        "glimpsezoo.zoo.hooks": ("hookimpl",),
    },
    "authors of models": {
        "glimpsezoo.api": ("GlimpseModel", "FeedForward"),  # from here, so that models have `push_to_hub` and the like
        "glimpsezoo.core.protocol": ("State", "Phase", "PaperMacs"),
        "glimpsezoo.core.feedforward": ("FeedForwardState", "Normalise", "cross_entropy_step"),
        "glimpsezoo.core.regions": ("Regions", "Decision", "Made"),
        "glimpsezoo.core.senses": ("crop", "bilinear_crop", "straight_through_crop", "retina", "grid_crop", "resample", "thumbnail"),
        "glimpsezoo.core.noise": ("Noise",),
        "glimpsezoo.core.batched": ("Batched", "select_rows", "join_rows", "rows_of_each"),
        "glimpsezoo.core.macs": ("Meter", "count_macs"),
        "glimpsezoo.core.symbolic": ("exporting",),
        "glimpsezoo.training.job": ("TrainingPhase",),
        "glimpsezoo.training.reinforce": ("monte_carlo", "returns", "reinforce", "standardised"),
        "glimpsezoo.settings": ("Settings",),
        "glimpsezoo.specs": ("Task", "ModelSpec", "ImporterSpec", "PaperSpec"),
        "glimpsezoo.zoo.policies": ("PolicyName", "find_policy"),
        "glimpsezoo.zoo.checkpoints": ("read_checkpoint", "Released"),
        "glimpsezoo.zoo.card_config": ("Published", "PublishedExits"),
        "glimpsezoo.errors": ("did_you_mean",),
    },
    "authors of exit rules": {
        "glimpsezoo.core.exits": ("ExitRule", "ThresholdRule", "budget_thresholds"),
        "glimpsezoo.specs": ("ExitRuleSpec",),
    },
    "authors of policies": {
        "glimpsezoo.core.protocol": ("Policy",),
        "glimpsezoo.specs": ("PolicySpec",),
    },
    "authors of data": {
        "glimpsezoo.data.base": ("ImageData", "Example", "DataInfo", "BadImageError"),
        "glimpsezoo.data.config": ("DataSettings", "SizedSettings"),
        "glimpsezoo.specs": ("DatasetSpec",),
    },
    "authors of corruptions": {
        "glimpsezoo.conditions.base": ("Condition", "Clean"),
        "glimpsezoo.specs": ("CorruptionSpec",),
    },
    "authors of attacks": {
        "glimpsezoo.conditions.attacks.base": ("Attack", "keep_better"),
        "glimpsezoo.conditions.attacks.victim": ("Victim", "probe", "cross_entropy"),
        "glimpsezoo.conditions.attacks.ball": ("direction", "project", "random_start"),
        "glimpsezoo.conditions.attacks.settings": ("AttackSettings",),
        "glimpsezoo.specs": ("AttackSpec",),
    },
    "authors of loggers": {
        "glimpsezoo.training.loggers": ("TrainingLogger",),
        "glimpsezoo.specs": ("LoggerSpec",),
    },
    "authors of measures": {
        "glimpsezoo.measures.base": ("Measure", "Bench"),
        "glimpsezoo.evaluation.plan": ("evaluation_of", "PlannedEvaluation", "PlannedFinding"),
        "glimpsezoo.schema": ("Section",),
        "glimpsezoo.measures.shown": ("Column", "Cell", "Table", "Figure"),
        "glimpsezoo.specs": ("MeasureSpec",),
    },
}
_MODULE_OF = {name: module for group in _EXPORTS.values() for module, names in group.items() for name in names}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'glimpsezoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
