"""Attacks on the parts specific to glimpse models: several predictions, exits, chosen glimpses, random draws, hard choices."""

import copy
from typing import Any

import pytest
import torch
from models_to_attack import Net, attack_of, attacked, digits, trained_net, trained_peek
from torch import Tensor
from toy_models import Peek, Tree, batch_of_images, toy

import glimpsezoo as gz
from glimpsezoo.conditions.attacks.base import attacker_noise
from glimpsezoo.conditions.attacks.slowdown import doubt, exit_steps
from glimpsezoo.conditions.attacks.victim import Victim, cross_entropy, margin, probe
from glimpsezoo.core.exits import Confidence
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.rollout import Record, Trace, rollout

RANDOM = ["pgd", "apgd-ce", "square"]  # attacks that draw
EVERY = Record(every_step=True)


def run(model: Any, images: Tensor, noise: Noise | None = None, **options: Any) -> Trace:
    with torch.no_grad():
        return rollout(model, images, noise=noise, record=EVERY, **options)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", RANDOM)
def test_an_image_is_attacked_alike_in_any_batch_and_order(name: str, norm: str) -> None:
    """In double precision, because steps depend on steps, and a gradient that is only rounding moves a pixel by a whole step."""
    model, images, labels = trained_net()
    model, images = copy.deepcopy(model).double(), images.double()
    ids = 5 + 3 * torch.arange(len(images))
    attack = attack_of(name, norm=norm, eps=0.05 if norm == "Linf" else 0.6, steps=10)
    before = torch.random.get_rng_state()
    whole = attacked(attack, model, images, labels, ids)
    assert torch.equal(torch.random.get_rng_state(), before)
    order = torch.tensor([17, 3, 11, 0])
    some = attacked(attack, model, images[order], labels[order], ids[order])
    torch.testing.assert_close(some, whole[order], rtol=0, atol=1e-9)
    assert not torch.equal(attacked(attack_of(name, norm=norm, seed=1, steps=10), model, images, labels, ids), whole)


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "square"])
def test_any_step_breaks_more_images_at_some_step_than_aiming_at_the_last(name: str) -> None:
    model, images, labels = trained_peek()
    steps = {"square": 60}.get(name, 10)
    survivors = []
    for target in ("final", "any-step"):
        adversarial = attacked(attack_of(name, eps=0.06, steps=steps, target=target), model, images, labels)
        right = run(model, adversarial).logits_by_step().argmax(2) == labels[:, None]
        survivors.append(right.all(1).sum())
    assert survivors[1] <= survivors[0]
    assert survivors[1] < len(images)


def test_the_prediction_of_any_step_is_wrong_where_one_of_them_is() -> None:
    model, images, labels = trained_peek()
    victim = Victim(model, images, labels, attacker_noise(0, torch.arange(len(images)))[1], target="any-step")
    noisy = (images + 0.5 * (torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 0.5)).clamp(0, 1)
    expected = (run(model, noisy).logits_by_step().argmax(2) != labels[:, None]).any(1)
    assert 0 < expected.sum() < len(expected)
    assert torch.equal(victim.wrong(noisy), expected)


def test_the_exit_is_attacked_where_the_image_exits() -> None:
    model, images, labels = trained_peek()
    rule = Confidence(0.6)
    victim = Victim(model, images, labels, attacker_noise(0, torch.arange(len(images)))[1], target="exit", exit_rule=rule)
    trace = run(model, images, exit_rule=rule)
    torch.testing.assert_close(victim.logits(images), trace.logits)
    adversarial = attacked(attack_of("apgd-ce", rule, eps=0.1, steps=20, target="exit"), model, images, labels)
    before = (trace.logits.argmax(1) == labels).sum()
    assert (run(model, adversarial, exit_rule=rule).logits.argmax(1) == labels).sum() < before


def test_margin_is_negative_exactly_for_errors() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 1.0, -1.0]])
    assert margin(logits, torch.tensor([0, 0])).tolist() == [1.0, -1.0]


def test_slowdown_keeps_images_looking() -> None:
    model, images, labels = trained_peek()
    clean_confidence = run(model, images).logits_by_step().softmax(2).amax(2)
    rule = Confidence(clean_confidence[:, 0].quantile(0.2).item())
    attack = attack_of("slowdown", rule, eps=0.1, steps=10)
    before, after = (run(model, each, exit_rule=rule).last_step for each in (images, attacked(attack, model, images, labels)))
    assert (after >= before).all()
    assert after.float().mean() > before.float().mean() + 0.5


def test_exit_steps_are_those_of_the_driver() -> None:
    model, images, _ = trained_peek()
    trace = run(model, images)
    for threshold in (0.5, 0.8, 0.95):
        rule = Confidence(threshold)
        assert torch.equal(exit_steps(rule, trace.logits_by_step()), run(model, images, exit_rule=rule).last_step)


@pytest.mark.parametrize("kind", [Peek, Tree])
def test_what_slowdown_wants_is_the_step_at_which_the_driver_stops(kind: Any) -> None:
    model, images = toy(kind, steps=4), batch_of_images(12)
    victim = Victim(model, images, torch.zeros(12, dtype=torch.long), Noise.of(1, torch.arange(12)))
    rule = Confidence(run(model, images).logits_by_step().softmax(2).amax(2)[:, :3].median().item())
    loss, success = doubt(rule)(victim, images, 0)
    trace = run(model, images, victim.noise.fork(0), exit_rule=rule)
    assert len(trace.last_step.unique()) > 1
    assert success.tolist() == trace.last_step.tolist()
    p = run(model, images, victim.noise.fork(0)).logits_by_step()[:, :3].double().softmax(2).amax(2)
    torch.testing.assert_close(loss.detach().double(), -(p / (1 - p)).log().sum(1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["peek", "tree", "pyramid"])
def test_a_frozen_run_keeps_the_looks_of_the_clean_one(kind: str) -> None:
    if kind == "pyramid":
        model, (images, labels, ids) = gz.load("pyramid-m3.digits"), digits(6)
    else:
        model, images = (trained_peek()[0] if kind == "peek" else toy(Tree, steps=3)), batch_of_images(12)
        labels, ids = torch.arange(12) % 3, torch.arange(12)
    model, images = copy.deepcopy(model).double(), images.double()  # so that rounding hides nothing
    noise = Noise.of(7, ids)
    attack = attack_of("pgd", path="frozen", eps=0.4, steps=3)
    adversarial = attacked(attack, model, images, labels, ids)
    choose = attack.choices(images, noise, model)
    clean, frozen, free = run(model, images, noise), run(model, adversarial, noise, choose=choose), run(model, adversarial, noise)
    assert looks_of(frozen) == looks_of(clean)
    assert looks_of(free) != looks_of(clean)
    again = run(model, adversarial, noise, choose=choose, exit_rule=Confidence(0.7))  # some images exit early
    own = rollout_logits(frozen)[torch.arange(len(images)), again.last_step - 1]
    torch.testing.assert_close(again.logits, own, rtol=1e-9, atol=1e-9)
    assert attack_of("pgd").choices(images, noise, model) is None


def looks_of(trace: Trace) -> list[Any]:
    looks = [(look.rows, look.decision.regions) for look in trace.looks]
    return [(rows[regions.image].tolist(), regions.centre.tolist(), regions.scale.tolist()) for rows, regions in looks]


def rollout_logits(trace: Trace) -> Tensor:
    return trace.logits_by_step()


def test_a_frozen_path_hides_the_locator_from_the_gradient() -> None:
    model, images, labels = trained_peek()
    noise = attacker_noise(0, torch.arange(len(images)))[1]
    free, frozen = (Victim(model, images, labels, noise, path=each).prepared() for each in ("free", "frozen"))
    a, b = (probe(victim, images, cross_entropy) for victim in (free, frozen))
    torch.testing.assert_close(a.loss, b.loss)
    assert not torch.allclose(a.gradient, b.gradient)


def test_the_attackers_noise_is_no_measured_noise() -> None:
    ids = torch.arange(50)
    start, own = attacker_noise(0, ids)
    keys = {key for run in range(20) for key in own.fork(run).keys.tolist()} | set(start.keys.tolist()) | set(own.keys.tolist())
    measured = {key for seed in range(50) for key in Noise.of(seed, ids).keys.tolist()}
    assert len(keys) == 22 * 50
    assert not keys & measured


def test_expectation_over_transformation_is_the_mean_over_runs_of_their_own() -> None:
    model, images, labels = toy(Tree, steps=3), batch_of_images(8), torch.arange(8) % 3
    victim = Victim(model, images, labels, attacker_noise(0, torch.arange(8))[1])
    alone = [probe(victim, images, cross_entropy, first_run=run) for run in range(4)]
    assert not torch.allclose(alone[0].gradient, alone[1].gradient)
    mean = probe(victim, images, cross_entropy, runs=4)
    torch.testing.assert_close(mean.gradient, torch.stack([each.gradient for each in alone]).mean(0))
    torch.testing.assert_close(mean.loss, torch.stack([each.loss for each in alone]).mean(0))


def test_restarts_never_lose() -> None:
    model, images, labels = trained_net()
    losses = []
    for restarts in (1, 4):
        adversarial = attacked(attack_of("pgd", eps=0.07, steps=3, restarts=restarts), model, images, labels)
        logits = run(model, adversarial).logits
        losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    assert (losses[1] >= losses[0] - 1e-5).all()
    assert (losses[1] > losses[0] + 1e-5).any()


def test_the_papers_pgd_is_that_of_normalised_pixels_with_the_gradients_of_training() -> None:
    """Compared with a plain loop over normalised pixels, on a model with the paper's gradients in training mode."""
    model, (images, labels, ids) = gz.load("mgnet.digits"), digits(6)
    mean, std = model.normalise.mean, model.normalise.std
    adversarial = attacked(attack_of("pgd-paper", eps=0.2, step_size=0.05), model, images, labels, ids)
    model.training_gradients = True
    clean = (images - mean) / std
    x = clean.clone()
    for _ in range(4):
        x.requires_grad_()
        loss = torch.nn.functional.cross_entropy(rollout(model, x * std + mean).logits, labels)
        x = x.detach() + 0.05 * torch.autograd.grad(loss, x)[0].sign()
        x = torch.minimum(torch.maximum(x, clean - 0.2), clean + 0.2)
    model.training_gradients = False
    wrong = ((adversarial - mean) / std - x).abs() > 1e-4  # a gradient that is only rounding may have either sign
    assert wrong.float().mean() < 0.01
    assert adversarial.min() < 0  # not clipped
    free = attacked(attack_of("pgd-paper", eps=0.2, step_size=0.05), _with_true_gradients(model), images, labels, ids)
    assert ((free - adversarial).abs() > 1e-4).float().mean() > 0.02


def _with_true_gradients(model: Any) -> Any:
    kind = type(model)

    class Honest(kind):  # type: ignore[valid-type,misc]
        training_gradients = property(lambda self: False, lambda self, value: None)

    model.__class__ = Honest
    return model


class Shaky(Net):
    """Adds the noise of the run to every pixel."""

    stochastic = True

    def sense(self, images: Tensor, state: Any, regions: Any) -> Tensor:
        noise = state.noise.uniform(1, images[0].numel()).view_as(images)
        return super().sense(images + 0.2 * (noise - 0.5), state, regions)


def test_autoattack_for_stochastic_models_breaks_them_in_most_runs() -> None:
    pytest.importorskip("pyautoattack")
    trained, images, labels = trained_net()
    images, labels = images[:10], labels[:10]
    model = copy.deepcopy(trained)
    model.__class__ = Shaky
    whole = attack_of("autoattack-rand", eps=0.09)
    attack = type(whole)(whole.settings.model_copy(update={"steps": 15, "eot": 5}))  # fewer than AutoAttack takes
    adversarial = attacked(attack, model, images, labels)
    assert (adversarial - images).abs().max() <= 0.09 + 1e-6
    runs = [Noise.of(seed, torch.arange(10)) for seed in range(10)]
    clean, broken = (
        torch.stack([run(model, each, noise).logits.argmax(1) == labels for noise in runs]).float() for each in (images, adversarial)
    )
    assert clean.mean() > 0.9
    assert broken.mean() < 0.6
    order = torch.tensor([6, 2, 9])
    torch.testing.assert_close(attacked(attack, model, images[order], labels[order], order), adversarial[order], rtol=0, atol=1e-5)
