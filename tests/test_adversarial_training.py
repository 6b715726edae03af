"""Adversarial training: the images that are trained on, their budget and their path; replays; and that it resumes exactly."""

import itertools
from pathlib import Path

import pytest
import torch
from test_training import RECIPE, finish, job
from torch import Tensor
from torch.nn import functional as F
from toy_models import Peek, batch_of_images, toy

from glimpsezoo import Noise, Task, TrainingPhase, create_model, rollout
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.training.adversarial import CHANGE, freely_changed, learn_change, worst_images
from glimpsezoo.training.loop import train
from glimpsezoo.zoo.recipes import AdversarialRecipe, Recipe

PGD = "[phase.adversarial]\nsteps = 2\neps = 0.1\n"
FREE = '[phase.adversarial]\nmethod = "free"\nreplays = 3\neps = 0.1\n'
LABELS = torch.arange(6) % 3


def recipe(table: str) -> str:
    """The recipe of `test_training` with a table in its first phase."""
    return RECIPE.replace('[[phase]]\nname = "second"', f'{table}\n[[phase]]\nname = "second"')


def loss_of(model: Peek, images: Tensor) -> Tensor:
    return F.cross_entropy(rollout(model, images, noise=NOISE).logits, LABELS, reduction="none")


NOISE = Noise.of(5, torch.arange(6))


@pytest.mark.parametrize("path", ["free", "frozen", "detached"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_worst_images_have_a_higher_loss_within_the_budget(path: str, norm: str) -> None:
    model, images = toy(Peek, steps=3), batch_of_images(6)
    how = AdversarialRecipe.parse({"norm": norm, "path": path, "eps": 0.2, "steps": 5}, owner="test")
    found = worst_images(model, images, LABELS, NOISE, how)
    change = (found - images).flatten(1)
    assert float(change.abs().max() if norm == "Linf" else change.norm(dim=1).max()) <= 0.2 + 1e-6
    assert 0 <= found.min() <= found.max() <= 1
    assert not found.requires_grad
    assert (loss_of(model, found) > loss_of(model, images)).all()
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_path_of_the_gradient_is_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step from the image itself: its sign is that of the gradient, which is computed here by other means."""
    monkeypatch.setattr("glimpsezoo.training.adversarial.random_start", lambda images, *rest: images.clone())
    model, images = toy(Peek, steps=3), batch_of_images(6) * 0.5 + 0.25
    places = [look.decision.regions for look in rollout(model, images, noise=NOISE).looks]
    steps = itertools.count()

    def noted(images: Tensor, state: object, decision):
        return type(decision).certain(places[next(steps)])

    def sign(choose=None) -> Tensor:
        given = images.clone().requires_grad_()
        loss = F.cross_entropy(rollout(model, given, choose=choose, noise=NOISE).logits, LABELS, reduction="sum")
        return torch.autograd.grad(loss, given)[0].sign()

    def found(path: str) -> Tensor:
        how = AdversarialRecipe(path=path, eps=0.1, steps=1, step_size=0.01)
        return (worst_images(model, images, LABELS, NOISE, how) - images).sign()

    for place in places:
        for name in ("centre", "scale"):
            object.__setattr__(place, name, getattr(place, name).detach())
    fixed = sign(noted)
    assert torch.equal(found("detached"), fixed)
    assert torch.equal(found("frozen"), fixed)  # the image has not moved yet
    assert torch.equal(found("free"), sign())
    assert not torch.equal(fixed, sign())


def test_frozen_looks_stay_and_detached_ones_move() -> None:
    seen: list[Tensor] = []

    class Noted(Peek):
        def sense(self, images, state, regions):
            if images.requires_grad:
                seen.append(regions.centre.detach())
            return super().sense(images, state, regions)

    def spread(path: str) -> float:
        """How far the second look moves over the steps of PGD."""
        seen.clear()
        worst_images(model, batch_of_images(6), LABELS, NOISE, AdversarialRecipe(path=path, eps=0.3, steps=4))
        return float((torch.stack(seen[1::2]) - seen[1]).abs().max())

    model = toy(Noted, steps=2)
    assert spread("frozen") == 0
    assert spread("detached") > 0.01


def test_the_attack_leaves_no_trace_in_the_model() -> None:
    """A batch norm keeps its statistics, and every module its mode."""
    model = toy(Peek, steps=2)
    model.see = torch.nn.Sequential(model.see, torch.nn.BatchNorm2d(6))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    worst_images(model, batch_of_images(6), LABELS, NOISE, AdversarialRecipe(steps=2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_a_budget_attacks_an_earlier_step() -> None:
    model, images = toy(Peek, steps=3), batch_of_images(6)
    first = worst_images(model, images, LABELS, NOISE, AdversarialRecipe(steps=2, budget=1))
    assert not torch.equal(first, worst_images(model, images, LABELS, NOISE, AdversarialRecipe(steps=2)))
    with pytest.raises(GlimpseZooError, match="budget of 1 to 3 steps"):
        worst_images(model, images, LABELS, NOISE, AdversarialRecipe(budget=4))


def test_free_training_follows_algorithm_1(tmp_path: Path) -> None:
    """Three replays of one batch, step by step, with plain SGD."""
    how, memory = AdversarialRecipe(method="free", eps=0.1), {}
    images, delta = batch_of_images(6), torch.zeros(6, 1, 16, 16)
    for _ in range(3):
        given = freely_changed(images, memory, how)
        assert torch.equal(given, (images + delta).clamp(0, 1))
        gradient = torch.randn_like(images)
        learn_change(gradient, memory, how)
        delta = (delta + 0.1 * gradient.sign()).clamp(-0.1, 0.1)
    smaller = freely_changed(images[:4], memory, how)  # the last batch of an epoch
    assert torch.equal(smaller, (images[:4] + delta[:4]).clamp(0, 1))
    learn_change(torch.ones(4, 1, 16, 16), memory, how)
    assert torch.equal(memory[CHANGE][4:], delta[4:])


def test_a_batch_is_replayed_and_an_epoch_has_as_many_more_steps(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def noted(model, images, labels, phase):
        seen.append(images.detach().clone())
        return {"ce": F.cross_entropy(rollout(model, images, noise=phase.noise).logits, labels)}

    work = job(tmp_path, recipe(FREE))
    object.__setattr__(work, "training_step", noted)
    lines = list(train(work))
    assert lines[-1].total == 2 * 4 * 3 + 5
    assert [line.epoch for line in lines] == [1] * 12 + [2] * 12 + [1] * 4 + [2]
    for first in (0, 3, 6):
        assert (seen[first] - seen[first + 1]).abs().max() <= 0.2 + 1e-6
        assert not torch.equal(seen[first], seen[first + 1])
    assert (seen[2] - seen[3]).abs().max() > 0.5  # another batch


@pytest.mark.parametrize("table", [PGD, FREE, "[phase.augmix]\n"], ids=["pgd", "free", "augmix"])
@pytest.mark.parametrize("stop_after", [2, 5])
def test_it_resumes_with_the_same_weights(tmp_path: Path, table: str, stop_after: int) -> None:
    text = recipe(table)
    whole = finish(job(tmp_path / "whole", text))
    steps = train(job(tmp_path / "cut", text, checkpoint_seconds=1e9))
    for _ in range(stop_after):
        next(steps)
    steps.close()
    resumed = finish(job(tmp_path / "cut", text))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    plain = finish(job(tmp_path / "plain"))
    assert not all(torch.equal(plain[name], whole[name]) for name in whole)


def test_it_makes_a_model_more_robust(tmp_path: Path) -> None:
    """PGD with more steps than in training, on images of the calibration split, against the plain training of the same length."""

    def attacked(text: str, folder: str) -> float:
        work = job(tmp_path / folder, text.replace("epochs = 2", "epochs = 15"))
        finish(work)
        images, labels = (torch.stack([work.train[k].image for k in range(30)]), torch.arange(30) % 3)
        noise = Noise.of(0, torch.arange(30))
        worst = worst_images(work.model, images, labels, noise, AdversarialRecipe(eps=0.3, steps=20))
        return float((rollout(work.model, worst, noise=noise).logits.argmax(1) == labels).float().mean())

    plain, pgd, free = (attacked(text, str(k)) for k, text in enumerate((RECIPE, recipe(PGD), recipe(FREE))))
    assert min(pgd, free) > plain


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eps": "-1"}, "--set eps=-1 for train.adversarial: "),
        ({"eps": "8"}, "expected eps of at most 1 .*did you mean 8/255"),
        ({"eps": "8/255", "step_size": "0.5"}, "step_size of at most 2 eps"),
        ({"epsilon": "0.1"}, "train.adversarial has no setting 'epsilon': did you mean 'eps'"),
        ({"method": "free", "steps": "3"}, "no steps with method 'free', got 3: leave it out"),
        ({"method": "free", "path": "free"}, "no path with method 'free'"),
        ({"replays": "3"}, "no replays with method 'pgd', got 3"),
        ({"method": "free", "norm": "L2"}, "norm 'Linf' with method 'free', got 'L2'"),
        ({"": "pgd"}, "expected train.adversarial=none, or a key .* as in train.adversarial.KEY, got 'pgd'"),
    ],
)
def test_what_cannot_be_is_one_line(values: dict[str, str], message: str) -> None:
    given = {f"adversarial.{key}".removesuffix("."): value for key, value in values.items()}
    with pytest.raises(GlimpseZooError, match=message) as caught:
        Recipe.from_toml(RECIPE, name="x").override(given)
    assert "\n" not in str(caught.value)


def test_set_makes_changes_and_removes_the_table() -> None:
    plain = Recipe.from_toml(RECIPE, name="x")
    made = plain.override({"adversarial.eps": "4/255", "adversarial.norm": "Linf", "augmix.weight": "6"})
    assert [phase.adversarial.eps for phase in made.phase if phase.adversarial] == [4 / 255] * 2
    assert made.phase[0].augmix is not None
    assert made.phase[0].augmix.weight == 6
    changed = made.override({"adversarial.steps": "3"}).phase[0].adversarial
    assert changed is not None
    assert (changed.eps, changed.steps) == (4 / 255, 3)
    assert made.override({"adversarial": "none", "augmix": "none"}) == plain
    assert AdversarialRecipe.parse({"norm": "L2"}, owner="x").eps == 0.5
    assert Recipe.parse(made.model_dump(mode="json", exclude_defaults=True), owner="a card's") == made


TASK = Task(image_size=(32, 32), channels=1, classes=tuple("abcde"))
OPTIONS = {"ranzato": {"glimpse": 1}, "pyramid-m1": {}, "mgnet": {}, "cnn4": {}, "timm:resnet18": {}, "ranzato-fc": {}}
SETTINGS = {"mgnet": {"backbone": "cnn4", "glimpses": 2, "downsample": 2}, "ranzato": {"low_size": 8}}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("path", ["free", "frozen", "detached"])
def test_the_models_of_every_plugin_can_be_trained_on_their_worst_images(name: str, path: str) -> None:
    """The loss of the training step on them has a gradient, and the images are changed within the budget."""
    from glimpsezoo.specs import ModelSpec, load_string
    from glimpsezoo.zoo.plugins import registry

    torch.manual_seed(0)
    model = create_model(name, task=TASK, **SETTINGS.get(name, {})).train()
    images, labels = torch.rand(4, 1, 32, 32), torch.arange(4)
    noise = Noise.of(0, torch.arange(4))
    found = worst_images(model, images, labels, noise, AdversarialRecipe(steps=2, path=path))
    assert 0 < (found - images).abs().max() <= 8 / 255 + 1e-6
    spec = registry().find(ModelSpec, name)
    step = load_string(str(spec.training_step))
    phase = TrainingPhase(name="x", options=OPTIONS[name], step=1, steps=2, epoch=0, noise=noise, memory={})
    given = found.requires_grad_()  # as the free method needs it
    sum(step(model, given, labels, phase).values()).backward()
    assert given.grad is not None
    assert given.grad.abs().max() > 0
