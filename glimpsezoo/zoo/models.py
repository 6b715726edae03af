"""Models by name: list them, load trained ones and create untrained ones."""

import fnmatch
from typing import Any

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import ModelSpec, Task
from glimpsezoo.zoo.cards import card_paths
from glimpsezoo.zoo.names import Assignments, build_model, choose_model, data_spec
from glimpsezoo.zoo.own_data import DEFAULT_DATA
from glimpsezoo.zoo.plugins import registry


def list_models(pattern: str = "*") -> list[str]:
    """The names of trained cards (`mgnet.digits`) and of the plugins' models (`mgnet`, `timm:NAME`), sorted.

    pattern: may have wildcards (*, ?, [abc]).

    >>> import glimpsezoo as gz
    >>> "cnn4.digits" in gz.list_models("cnn4*")
    True
    """
    names = [spec.title for spec in registry().all(ModelSpec)]
    return sorted(name for name in {*names, *card_paths()} if fnmatch.fnmatchcase(name, pattern))


def load(name: str, *, data: str | None = None, **settings: Any) -> GlimpseModel[Any]:
    """Load a trained model: in eval mode, on the CPU, for images of the size that it was trained on.

    name: a card (`mgnet.digits`), a card's folder, or a model, for which the card trained on `data` (default: digits) is taken. settings:
    what `--set` takes, as long as it does not contradict the weights. Raises `GlimpseZooError` if there is no such card, or if its
    weights are missing or damaged.

    >>> import torch, glimpsezoo as gz
    >>> model = gz.load("mgnet.digits")
    >>> gz.rollout(model, torch.zeros(2, 1, 64, 64)).logits.shape
    torch.Size([2, 10])
    """
    choice = choose_model(name, data or DEFAULT_DATA, Assignments(scoped={name: settings}), None)
    return build_model(choice, choice.own_card.config.task.task())


def create_model(name: str, *, task: Task | None = None, data: str | None = None, seed: int = 0, **settings: Any) -> GlimpseModel[Any]:
    """Create an untrained model in eval mode, on the CPU, for `task`, or for the task that the data set `data` declares.

    seed: decides the weights. settings: what `--set` takes; anything left out has the model's default for `data`.
    Raises `GlimpseZooError` for an unknown name or setting, and if it gets neither a task nor data that declare one.

    >>> import glimpsezoo as gz
    >>> model = gz.create_model("mgnet", data="digits", glimpses=2)
    >>> model.steps
    2
    """
    task = task or (data_spec(data).task if data else None)
    if task is None:
        raise GlimpseZooError(f"expected a task, or the name of data that declare one, got {data!r}: give create_model a task")
    return build_model(choose_model(name, data or "", Assignments(scoped={name: settings}), "none"), task, seed=seed)
