"""Attacks compared with independent implementations on a small net: per pixel if deterministic, otherwise by robust accuracy."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models_to_attack import accuracy, attack_of, attacked, trained_net
from torch import Tensor

from glimpsezoo.conditions.attacks import autoattack, square
from glimpsezoo.conditions.attacks.apgd import Ascent
from glimpsezoo.conditions.attacks.ball import lengths, random_start
from glimpsezoo.conditions.attacks.base import Attack, attacker_noise
from glimpsezoo.conditions.attacks.settings import APGDSettings, SquareSettings
from glimpsezoo.conditions.attacks.square import _bump, side
from glimpsezoo.conditions.attacks.victim import Victim, cross_entropy
from glimpsezoo.core.noise import Noise

EPS = {"Linf": 0.077, "L2": 0.53}  # with these, gradient attacks break about half of the images
SQUARE_EPS = {"Linf": 0.11, "L2": 1.1}  # with these, Square does


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("name", "steps"), [("fgsm", 1), ("pgd", 7)])
def test_fgsm_and_pgd_agree_with_foolbox_per_pixel(norm: str, name: str, steps: int) -> None:
    foolbox = pytest.importorskip("foolbox")
    model, images, labels = trained_net()
    eps = EPS[norm]
    settings: dict[str, Any] = {"random_start": False, "steps": steps} if name == "pgd" else {}
    ours = attack_of(name, norm=norm, eps=eps, **settings)
    kind = foolbox.attacks.LinfPGD if norm == "Linf" else foolbox.attacks.L2PGD
    theirs = kind(abs_stepsize=ours.settings.step, steps=steps, random_start=False)
    _, expected, _ = theirs(foolbox.PyTorchModel(model.body, bounds=(0, 1), device="cpu"), images, labels, epsilons=eps)
    torch.testing.assert_close(attacked(ours, model, images, labels), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_breaks_as_many_as_its_authors_does(loss: str, norm: str) -> None:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    model, images, labels = trained_net()

    def theirs(seed: int) -> Tensor:
        attack = base.APGDAttack(model.body, n_iter=40, norm=norm, eps=EPS[norm], loss=loss, seed=seed, device="cpu")
        return attack.perturb(images, labels)

    ours = attack_of(f"apgd-{loss}", norm=norm, eps=EPS[norm], steps=40)
    _assert_as_many(ours, theirs, norm, within=0.04)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_apgd_goes_the_way_of_its_authors_from_the_same_start(norm: str) -> None:
    """With 90 steps, no period is a multiple of 4, for which their code halves the step at equality and the paper does not."""
    base = pytest.importorskip("pyautoattack.autopgd_base")
    model, images, labels = trained_net()
    victim = Victim(model, images, labels, attacker_noise(0, torch.arange(len(images)))[1])
    start = random_start(images, norm, EPS[norm], Noise.of(3, torch.arange(len(images))))
    settings = APGDSettings.parse({"norm": norm, "eps": EPS[norm], "steps": 90}, owner="apgd-ce")
    theirs = base.APGDAttack(model.body, n_iter=90, norm=norm, eps=EPS[norm], loss="ce", device="cpu")
    theirs.init_hyperparam(images)
    with torch.no_grad(), torch.random.fork_rng():
        ours = Ascent(victim, start, cross_entropy, settings, 0)
        ours.run()
        best, _, loss, _ = theirs.attack_single_run(images, labels, x_init=start)
    assert (ours.eta < settings.step).any()
    torch.testing.assert_close(ours.best.loss, loss, rtol=1e-4, atol=1e-5)
    same = (ours.best_images - best).abs().flatten(1).amax(1) < 1e-3
    assert same.float().mean() > 0.9  # rounding may lead to another corner with the same loss


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_square_breaks_as_many_as_its_authors_does(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the places that the authors' code never draws, which matters in images of 8 pixels."""
    base = pytest.importorskip("pyautoattack.square")
    places = square._corner
    monkeypatch.setattr(square, "_corner", lambda draws, height, width, side: places(draws, height - 1, width - 1, side))
    model, images, labels = trained_net()

    def theirs(seed: int) -> Tensor:
        attack = base.SquareAttack(model.body, norm=norm, eps=SQUARE_EPS[norm], n_queries=100, resc_schedule=True, seed=seed, device="cpu")
        return attack.perturb(images, labels)

    _assert_as_many(attack_of("square", norm=norm, eps=SQUARE_EPS[norm], steps=100), theirs, norm, within=0.08)


def _assert_as_many(attack: Attack[Any], theirs: Callable[[int], Tensor], norm: str, *, within: float) -> None:
    """The mean robust accuracy over random starts is the same, and no change exceeds the budget."""
    model, images, labels = trained_net()
    seeds, left = range(3), []
    for seed in seeds:
        again = type(attack)(attack.settings.model_copy(update={"seed": seed}))
        adversarial = attacked(again, model, images, labels)
        left.append(accuracy(model, adversarial, labels))
        assert (lengths(adversarial - images, norm) <= attack.settings.eps * (1 + 1e-5)).all()
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1
    with torch.no_grad(), torch.random.fork_rng():
        expected = [accuracy(model, theirs(seed), labels) for seed in seeds]
    assert 0.1 < sum(expected) / len(seeds) < 0.9, "the budget tells nothing"
    assert abs(sum(left) - sum(expected)) / len(seeds) <= within, (left, expected)


def test_autoattack_says_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an image that is right to the end, of which it expects half."""
    pytest.importorskip("pyautoattack")
    monkeypatch.setattr(autoattack, "QUERIES", 500)
    model, images, labels = trained_net()
    images, passes = images[:1], {"forward": 0, "backward": 0}

    def count(module: Any, given: Any, logits: Tensor) -> None:
        passes["forward"] += 1
        if logits.requires_grad:
            logits.register_hook(lambda gradient: passes.update(backward=passes["backward"] + 1))

    attack = attack_of("autoattack", norm="Linf", eps=1e-4)
    labels = model.body(images).argmax(1)
    with model.body.register_forward_hook(count):
        attacked(attack, model, images, labels)
    assert 2 * attack.passes(model) == pytest.approx(passes["forward"] + 2 * passes["backward"], rel=0.1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_autoattack_breaks_as_many_as_the_whole_of_its_authors(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("pyautoattack")
    monkeypatch.setattr(autoattack, "QUERIES", 100)
    monkeypatch.setattr(autoattack, "TARGETS", 1)
    model, images, labels = trained_net()
    images, labels, eps = images[:12], labels[:12], EPS[norm]
    attack = attack_of("autoattack", norm=norm, eps=eps)
    adversarial = attacked(attack, model, images, labels)
    whole = package.AutoAttack(model.body, norm=norm, eps=eps, seed=0)
    whole.apgd_targeted.n_target_classes = whole.fab.n_target_classes = 1
    whole.square.n_queries = 100
    with torch.random.fork_rng():
        expected, _ = whole.run_standard_evaluation(images, labels)
    ours, theirs = accuracy(model, adversarial, labels), accuracy(model, expected, labels)
    assert 0.1 < ours < 0.9, "the budget tells nothing"
    assert abs(ours - theirs) <= 1 / 12 + 1e-6
    assert (lengths(adversarial - images, norm) <= eps * (1 + 1e-5)).all()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert attack.implementation.startswith("pyautoattack ")


def test_the_bump_of_square_in_l2_is_equation_2() -> None:
    for height, width in ((5, 2), (7, 3), (6, 6)):
        found, n = _bump(height, width), height // 2
        for row in range(height):
            for column in range(width):
                rings = n - max(abs(row - height // 2), abs(column - width // 2))
                expected = sum(1 / (n + 1 - k) ** 2 for k in range(rings + 1))
                assert found[row, column].item() == pytest.approx(expected)


def test_squares_shrink_as_in_the_paper() -> None:
    whole = SquareSettings.parse({"steps": 10_000}, owner="square")
    areas = [side(query, whole, 100, 100) ** 2 / 10_000 for query in (0, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)]
    for number, area in enumerate(areas):
        assert math.sqrt(area) == pytest.approx(math.sqrt(0.8 / 2**number), abs=0.006)
    for last, number in ((10, 0), (50, 1), (200, 2), (1000, 4), (8000, 8)):
        assert side(last, whole, 100, 100) == round((0.8 * 10_000 / 2**number) ** 0.5)
    short = SquareSettings.parse({"steps": 1000}, owner="square")
    assert [side(query // 10, short, 100, 100) for query in (0, 520, 8010)] == [side(query, whole, 100, 100) for query in (0, 520, 8010)]
