"""The Python interface: list, load, make and measure models."""

import fnmatch
from typing import Any

from glimpsezoo.cards import all_cards, find_card
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.plugins import registry
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.resolve import Assignments, build_model, choose_model, data_spec
from glimpsezoo.specs import ModelSpec, Task


def list_models(pattern: str = "*") -> list[str]:
    """The names that `load` takes and plugins register: trained cards (`mgnet.digits`) and models (`mgnet`, `timm:NAME`).

    >>> import glimpsezoo as gz
    >>> gz.list_models("cnn4*")
    ['cnn4', 'cnn4.digits']
    """
    names = [spec.name + ("NAME" if spec.prefix else "") for spec in registry().all(ModelSpec)]
    names += [card.name for card in all_cards()]
    return sorted(name for name in set(names) if fnmatch.fnmatchcase(name, pattern))


def load(name: str, *, data: str | None = None, **settings: Any) -> GlimpseModel[Any]:
    """A trained model in eval mode, on the CPU.

    name: a card (`mgnet.digits`), a card's folder, or a model together with `data`, the data set it was trained on. settings: what
    `--set` takes, where it does not contradict the weights. Raises `GlimpseZooError`.

    >>> import torch, glimpsezoo as gz
    >>> model = gz.load("mgnet.digits")
    >>> gz.rollout(model, torch.zeros(2, 1, 64, 64)).logits.shape
    torch.Size([2, 10])
    """
    card = find_card(name if data is None else f"{name}.{data}")
    if card is None:
        known = f"{name}.{data}" if data else name
        choose_model(name, data or "", Assignments(), None)  # says what is wrong with the name
        raise GlimpseZooError(f"no trained card {known!r}: see gz.list_models()")
    argument = str(card.folder)
    choice = choose_model(argument, str(card.config.data["name"]), Assignments(scoped={argument: settings}), None)
    return build_model(choice, card.config.task.task())


def create_model(name: str, *, task: Task | None = None, data: str | None = None, seed: int = 0, **settings: Any) -> GlimpseModel[Any]:
    """An untrained model for a `task`, or for the one that the data set `data` declares; in eval mode.

    >>> import glimpsezoo as gz
    >>> model = gz.create_model("mgnet", data="digits", glimpses=2)
    >>> model.steps
    2
    """
    task = task or (data_spec(data).task if data else None)
    if task is None:
        raise GlimpseZooError("create_model needs a task, or the name of a data set that declares one")
    return build_model(choose_model(name, data or "", Assignments(scoped={name: settings}), "none"), task, seed=seed)
