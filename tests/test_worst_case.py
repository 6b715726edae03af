"""The worst case over an ensemble: who is in it, that it is the worst, and when it has converged."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from models_to_attack import Net, accuracy, attack_of, attacked, trained_net, trained_peek
from result_files import rows
from torch import Tensor

import glimpsezoo as gz
from glimpsezoo.conditions.attacks.base import attacker_noise
from glimpsezoo.conditions.attacks.victim import Victim, cross_entropy, margin_loss, probe
from glimpsezoo.conditions.attacks.worst_case import members, wrong_in
from glimpsezoo.core.noise import Noise
from glimpsezoo.data.limited import limited
from glimpsezoo.evaluation.measuring import Evaluation
from glimpsezoo.measures.attacked import convergence
from glimpsezoo.measures.base import Bench
from glimpsezoo.run.parse import parse_measures, scopes
from glimpsezoo.zoo.names import Assignments
from glimpsezoo.zoo.plugins import registry

EPS = 0.06  # at which single attacks break about half of the images


def small(**settings: Any) -> Any:
    return attack_of("worst-case", **{"eps": EPS, "steps": 4, "rounds": 2, **settings})


def test_the_ensemble_suits_the_model() -> None:
    assert [each.name for each in members(trained_net()[0])] == ["apgd-margin", "apgd-ce", "square"]
    free, frozen, detached = (f"apgd-{loss} {path}" for loss, path in (("margin", "free"), ("ce", "frozen"), ("ce", "detached")))
    names = [each.name for each in members(trained_peek()[0])]
    assert {free, frozen, detached, "square"} <= set(names)
    assert len(names) == 7
    assert {each.path for each in members(trained_peek()[0], "frozen")} == {"frozen"}
    assert {each.path for each in members(trained_peek()[0], first=False)} == {"free", "detached"}


def test_it_is_no_better_than_any_of_its_members() -> None:
    model, images, labels = trained_net()
    worst = accuracy(model, attacked(small(), model, images, labels), labels)
    for name in ("apgd-ce", "apgd-margin", "square"):
        assert worst <= accuracy(model, attacked(attack_of(name, eps=EPS, steps=4), model, images, labels), labels)
    assert 0 < worst < 1


def test_it_stays_within_its_budget_and_does_not_depend_on_the_batch() -> None:
    model, images, labels = trained_peek()
    attack = small(eps=0.03)
    changed = attacked(attack, model, images, labels)
    assert (changed - images).abs().max() <= 0.03 + 1e-6
    order = torch.tensor([5, 0, 17])
    torch.testing.assert_close(attacked(attack, model, images[order], labels[order], order), changed[order], rtol=0, atol=1e-5)


def test_a_round_goes_on_where_the_one_before_ended() -> None:
    model, images, labels = trained_net()
    ids = torch.arange(len(images))
    first, second = small().rounds()
    found = [each.apply(images, labels, ids, model) for each in (first, second)]
    broken = [wrong_in(Victim(model, images, labels, Noise.of(0, ids)), each) == 1 for each in found]
    assert torch.equal(found[0][broken[0]], found[1][broken[0]])  # what was broken is not attacked again
    assert (broken[1] >= broken[0]).all()
    torch.testing.assert_close(attacked(small(), model, images, labels), found[1])  # the same without the first round in memory


def test_a_tie_is_a_success_only_where_the_prediction_is_wrong() -> None:
    class Tied(Victim):
        def logits(self, images: Tensor, run: int = 0) -> Tensor:
            return torch.ones(len(images), 2)

    model, images, _ = trained_peek()
    labels = torch.tensor([0, 1])
    victim = Tied(model, images[:2], labels, attacker_noise(0, labels)[1])
    wrong = (victim.logits(images[:2]).argmax(1) != labels).float()
    for objective in (margin_loss, cross_entropy):
        assert torch.equal(objective(victim, images[:2], 0)[1], wrong)


def test_a_detached_gradient_takes_the_glimpses_as_given() -> None:
    """At the images themselves, it is the gradient of the run with frozen glimpses; the run is the free one."""
    model, images, labels = trained_peek()
    noise = attacker_noise(0, torch.arange(len(images)))[1]
    free, frozen, detached = (Victim(model, images, labels, noise, path=each).prepared() for each in ("free", "frozen", "detached"))
    told = [probe(each, images, margin_loss) for each in (free, frozen, detached)]
    torch.testing.assert_close(told[2].gradient, told[1].gradient)
    assert not torch.allclose(told[2].gradient, told[0].gradient)
    moved = (images + 0.05).clamp(0, 1)
    torch.testing.assert_close(probe(detached, moved, margin_loss).loss, probe(free, moved, margin_loss).loss)


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "apgd-margin", "fgsm"])
def test_every_gradient_attack_can_be_detached(name: str) -> None:
    model, images, labels = trained_peek()
    free, detached = (attacked(attack_of(name, eps=0.4, path=path), model, images, labels) for path in ("free", "detached"))
    assert not torch.equal(free, detached)
    assert attack_of(name, path="detached").choices(images, Noise.of(0, torch.arange(len(images))), model) is None


def test_a_plugin_adds_a_stand_in() -> None:
    """A model without a gradient is broken through one that has it; success counts on the model alone."""
    trained, images, labels = trained_net()

    class Rounded(Net):
        def sense(self, images: Any, state: Any, regions: Any) -> Any:
            return super().sense((images * 64).round() / 64, state, regions)

    class Declared(Rounded):
        def stand_ins(self) -> list[Net]:
            soft = Net()
            soft.load_state_dict(self.state_dict())
            soft.surrogate = "pixels that are not rounded"
            return [soft.eval()]

    left = {}
    for kind in (Rounded, Declared):
        model = kind()
        model.load_state_dict(trained.state_dict())
        attack = small(eps=0.1, steps=20, rounds=1)
        left[kind] = accuracy(model.eval(), attacked(attack, model, images, labels), labels)
    assert "apgd-margin on pixels that are not rounded" in attack.described(model)["members"]
    assert left[Declared] < left[Rounded] - 0.3


def test_a_stochastic_model_is_judged_over_several_runs() -> None:
    model, images, labels = trained_net()
    noise = Noise.of(0, torch.arange(len(images)))

    class Tossing(Net):
        """Right in half of the runs."""

        stochastic = True

        def classify(self, state: Any) -> Any:
            logits = super().classify(state)
            return torch.where(state.noise.uniform(0, 1) < 0.5, logits, logits.roll(1, 1))

    model = type(model)()
    model.__class__ = Tossing
    model.load_state_dict(trained_net()[0].state_dict())
    shares = wrong_in(Victim(model, images, labels, noise), images)
    assert 0.3 < shares.mean() < 0.7
    assert set((5 * shares).round().int().tolist()) <= set(range(6))
    assert small().described(model)["eot"] == 4


def test_an_attack_has_converged_if_twice_the_iterations_take_little() -> None:
    def after(taken: int, n: int = 100) -> Any:
        before, last = rows([1] * n), rows([0] * taken + [1] * (n - taken))
        return convergence([[before], [last]])

    for taken, n, converged in ((0, 100, True), (3, 100, True), (4, 100, False), (0, 20, False), (2, 64, False), (15, 500, True)):
        told = after(taken, n)
        assert told.converged == converged, (taken, n, told)
        assert told.gain.low <= told.gain.value <= told.gain.high
        assert told.gain.value == pytest.approx(taken / n)
    assert convergence([[rows([1])]]) is None


def test_convergence_is_about_the_images_that_both_rounds_have() -> None:
    before, last = rows([1, 1, 1]), rows([0, 1], ids=[1, 2])
    told = convergence([[before], [last]])
    assert (told.gain.n, told.gain.value) == (2, 0.5)
    assert convergence([[before], [replace(last, id=np.array([8, 9]))]]) is None


def test_on_any_step_a_round_is_judged_by_the_images_that_are_right_at_every_step() -> None:
    """The second round made half of the first steps wrong, and no last step, so that a third one follows."""
    (measure, _) = parse_measures(["worst-case"], Assignments.parse(["worst-case.target=any-step"], [], scopes=scopes()))
    model, data = trained_peek()[0], limited(gz.open_data("digits"), 40)
    bench = Bench([""], [model], data, data, 0, torch.device("cpu"), "fail", registry())
    third = next(each for each in measure.plan(bench) if each.key == (0, 2, 0))
    right = replace(
        rows([1] * 40),
        **{name: np.ones((40, 2), int) for name in ("prediction", "macs_by_step", "regions")},
        **{name: np.ones((40, 2)) for name in ("confidence", "nll")},
        top5=np.ones((40, 2), bool),
    )
    broken = replace(right, prediction=np.array([[0, 1]] * 20 + [[1, 1]] * 20))
    first, second = (Evaluation(each, (), (), 1, 0) for each in (right, broken))
    bench.clean[0] = first
    done = {(0, 0, 0): first, (0, 1, 0): second}
    assert not third.unless(done)
    (record,) = measure.section(bench, 0, {0: done})
    assert (record.top1.value, record.attack_converged.gain.value) == (0.5, 0.5)
    assert not record.attack_converged.converged


def test_the_margin_needs_two_classes_alone() -> None:
    images = torch.rand(6, 1, 8, 8)
    model = Net(gz.Task((8, 8), 1, ("a", "b"))).eval()
    changed = attacked(attack_of("apgd-margin", eps=0.05, steps=5), model, images, torch.tensor([0, 1] * 3))
    assert (changed - images).abs().max() <= 0.05 + 1e-6
