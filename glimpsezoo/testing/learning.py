"""The rule for a model's training step."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.specs import ModelSpec, load_string
from glimpsezoo.testing.case import Case, RuleResult, Training
from glimpsezoo.training.job import TrainingPhase
from glimpsezoo.training.optimisers import choose_trainable, make_optimiser
from glimpsezoo.training.step import set_training_mode
from glimpsezoo.zoo.recipes import PhaseRecipe, read_recipe, recipe_names

WITHOUT_RECIPE = PhaseRecipe.parse({"name": "main", "steps": 1, "optimiser": "sgd", "lr": 1e-2}, owner="training")


def training_of(spec: ModelSpec, name: str) -> Training | None:
    """How a model is trained: by the recipe of the card `name`, of the digits, or else by the first one. None if it cannot be trained."""
    if spec.training_step is None:
        return None
    known = recipe_names(spec)
    order = sorted(known, key=lambda recipe: (recipe != name, not recipe.startswith(f"{name}."), not recipe.endswith(".digits")))
    phases = (read_recipe(spec, each).phase for each in order)
    return Training(load_string(spec.training_step), next(filter(None, phases), (WITHOUT_RECIPE,)))  # some recipes only start from a card


def training(case: Case) -> RuleResult:
    """A training step has finite losses and a gradient for every trainable parameter, changes them, and is the same with the same seed."""
    if case.training is None:
        return RuleResult({}, skipped="the model cannot be trained here, or is checked without its spec")
    reached, trainable = set[str](), set[str]()
    numbers: dict[str, Any] = {}
    for phase in _different(case.training.phases):
        model = deepcopy(case.model)
        own = dict(model.named_parameters())
        choose_trainable(model, phase)
        before = {name: parameter.detach().clone() for name, parameter in own.items()}
        losses, problem = _step(case, model, phase)
        numbers |= {f"{phase.name}: {name}": value for name, value in losses.items()}
        again = deepcopy(case.model)
        choose_trainable(again, phase)
        if not problem and not _same(case, (losses, model), (_step(case, again, phase)[0], again)):
            problem = "the same seed gives another step: draw from phase.noise, and keep nothing between steps but in phase.memory"
        mine = {name for name, parameter in own.items() if parameter.requires_grad}
        found = {name for name in mine if own[name].grad is not None}
        if not problem:
            make_optimiser(phase, [own[name] for name in mine]).step()
            still = [name for name in mine if torch.equal(own[name], before[name])]
            problem = "the step changes no parameter, because every gradient is 0" if len(still) == len(mine) else ""
        if problem:
            return RuleResult(numbers, f"training phase {phase.name!r}: {problem}")
        reached, trainable = reached | found, trainable | mine
    missed = [name for name, _ in case.model.named_parameters() if name in trainable - reached]
    numbers |= {"parameters": len(trainable), "without gradient": missed}
    if missed and case.model.policy == "learned" and case.model.steps > 1:
        return RuleResult(numbers, f"no term of the loss has a gradient for {', '.join(missed[:3])}: train it, or freeze it (trainable)")
    return RuleResult(numbers)


def _different(phases: Sequence[PhaseRecipe]) -> list[PhaseRecipe]:
    """The phases of a recipe that train other parameters or have other options."""
    return list({(phase.trainable, repr(sorted(phase.options.items()))): phase for phase in reversed(phases)}.values())[::-1]


def _step(case: Case, model: GlimpseModel[Any], phase: PhaseRecipe) -> tuple[dict[str, float], str]:
    """Take the gradient of a first training step: its losses, and what is wrong with them, if anything."""
    assert case.training is not None
    set_training_mode(model, phase)
    torch.manual_seed(0)  # as `train` does before every step
    labels = torch.arange(len(case.images), device=case.images.device) % len(case.model.task.classes)
    told = TrainingPhase(name=phase.name, options=phase.options, step=0, steps=10, epoch=0, noise=case.noise(), memory={})
    with torch.enable_grad():
        terms = case.training.step(model, case.images, labels, told)
        wrong = [name for name, term in terms.items() if not isinstance(term, Tensor) or term.ndim]
        if wrong or not terms:
            return {}, f"expected terms of the loss as tensors without dimensions, got {wrong[0] if wrong else 'none'}"
        losses = {name: term.item() for name, term in terms.items()}
        if bad := [name for name, term in terms.items() if not term.isfinite()]:
            return losses, f"expected finite losses, got {bad[0]} {losses[bad[0]]}"
        total = torch.stack(list(terms.values())).sum()
        if not total.requires_grad:
            return losses, "no term of the loss has a gradient"
        total.backward()
    broken = [name for name, parameter in model.named_parameters() if parameter.grad is not None and not parameter.grad.isfinite().all()]
    return losses, f"the gradient of {broken[0]} is not finite" if broken else ""


def _same(case: Case, one: tuple[dict[str, float], Any], other: tuple[dict[str, float], Any]) -> bool:
    """Whether two steps have the same losses and gradients; a GPU may sum in another order."""
    near = 1e-4 if case.images.is_cuda else 0.0
    pairs = [(a.grad, b.grad) for a, b in zip(one[1].parameters(), other[1].parameters(), strict=True)]
    if one[0].keys() != other[0].keys() or any((a is None) != (b is None) for a, b in pairs):
        return False
    numbers = [(torch.tensor(list(each[0].values()))) for each in (one, other)]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return all(torch.allclose(a, b, rtol=near, atol=near * a.abs().max().item()) for a, b in [(numbers[0], numbers[1]), *known])
