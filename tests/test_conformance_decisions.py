"""The rules for drawn decisions, policies and training steps on planted faults: each is named, and the honest models pass."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from faulty_models import OF_OTHERS, TASK, Honest, HonestConfig, Memory, made
from torch import Tensor
from torch.distributions import Categorical, Normal
from torch.nn import functional as F

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import Policy
from glimpsezoo.core.regions import Decision, Made, Regions
from glimpsezoo.core.rollout import Record, rollout
from glimpsezoo.testing import Case, Finding, check_rule, other_policies
from glimpsezoo.testing.case import Training
from glimpsezoo.testing.draws import DRAWS, _compared, _draws
from glimpsezoo.testing.learning import WITHOUT_RECIPE
from glimpsezoo.training.reinforce import reinforce
from glimpsezoo.zoo.policies import PolicyName, find_policy

NEW = OF_OTHERS
DEVIATION, SCALE = 0.2, 0.3


class SeekerConfig(HonestConfig):
    policy: PolicyName = "learned"


class Seeker(Honest):
    """Draws where it looks from a Gaussian, and can be told where to look. Its first region is drawn as well."""

    stochastic = True
    sees = "none"
    sizes: Any = None
    padding = "zeros"

    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        state, _ = super().start(images, noise)
        place = noise.uniform(0, 2).to(images)
        decision = self.look_at(state, place, made="sampled")
        return state, replace(decision, log_prob=decision.log_prob - 2 * torch.tensor(2.0).log(), entropy=decision.entropy + 1.386294)

    def drawn(self, state: Memory) -> Tensor:
        return state.noise.normal(state.step, 2)

    def score(self, chosen: Normal, place: Tensor) -> Tensor:
        return chosen.log_prob(place).sum(1)

    def entropy(self, chosen: Normal) -> Tensor:
        return chosen.entropy().sum(1)

    def locate(self, state: Memory) -> Decision:
        mean = 0.3 * self.where(state.memory).to(self.where.weight).tanh()
        chosen = Normal(mean, DEVIATION)
        place = (mean + DEVIATION * self.drawn(state).to(mean)).detach()
        decision = Decision.certain(Regions.one_each(place, SCALE), "sampled")
        return replace(decision, log_prob=self.score(chosen, place), entropy=self.entropy(chosen))

    def look_at(self, state: Memory, place: Tensor, scale: Tensor | None = None, made: Made = "given") -> Decision:
        return Decision.certain(Regions.one_each((2 * place - 1).to(self.where.weight), SCALE if scale is None else scale), made)


class Chooser(Seeker):
    """Draws one of four quadrants."""

    def chances(self, state: Memory) -> Tensor:
        return 3 * self.where(state.memory) @ torch.tensor([[-1.0, 1, -1, 1], [-1, -1, 1, 1]]).to(state.memory)  # [B, 4]

    def score_of(self, chosen: Categorical, taken: Tensor) -> Tensor:
        return chosen.log_prob(taken)

    def locate(self, state: Memory) -> Decision:
        chosen = Categorical(logits=self.chances(state))
        taken = (self.drawn_share(state) > chosen.probs.cumsum(1)).sum(1).clamp(max=3)  # type: ignore[operator]
        place = torch.stack([taken % 2, taken // 2], 1) - 0.5
        decision = Decision.certain(Regions.one_each(place.to(self.where.weight), SCALE), "sampled")
        return replace(decision, log_prob=self.score_of(chosen, taken), entropy=chosen.entropy())

    def drawn_share(self, state: Memory) -> Tensor:
        return state.noise.uniform(state.step, 1).to(state.memory)


class Bent(Seeker):
    """Brings the draw into the image by tanh, and scores it before that."""

    def locate(self, state: Memory) -> Decision:
        decision = super().locate(state)
        return replace(decision, regions=replace(decision.regions, centre=decision.regions.centre.mul(4).tanh()))


# Faults of log_prob


class ForgetsAnAxis(Seeker):
    def score(self, chosen: Normal, place: Tensor) -> Tensor:
        return chosen.log_prob(place)[:, 0]


class ScoresAnotherWidth(Seeker):
    def score(self, chosen: Normal, place: Tensor) -> Tensor:
        return super().score(Normal(chosen.mean, 1.5 * DEVIATION), place)


class ScoresTheMean(Seeker):
    def score(self, chosen: Normal, place: Tensor) -> Tensor:
        return super().score(chosen, chosen.mean)


class ScoresNothing(Seeker):
    def locate(self, state: Memory) -> Decision:
        return Decision.certain(super().locate(state).regions, "sampled")


class ScoresUpsideDown(Seeker):
    def score(self, chosen: Normal, place: Tensor) -> Tensor:
        return -super().score(chosen, place)


class SaysAnotherEntropy(Seeker):
    def entropy(self, chosen: Normal) -> Tensor:
        return super().entropy(chosen) + 0.2


class TakesAllChoicesAsLikely(Chooser):
    def score_of(self, chosen: Categorical, taken: Tensor) -> Tensor:
        return super().score_of(chosen, taken) * 0 - torch.tensor(4.0).log()


class TakesEveryChoiceAsCertain(Chooser):
    def score_of(self, chosen: Categorical, taken: Tensor) -> Tensor:
        return super().score_of(chosen, taken) * 0


# Faults of noise


class DrawsTheSameEverywhere(Seeker):
    def drawn(self, state: Memory) -> Tensor:
        return state.noise.normal(7, 2)


class DrawsLikeTheStepBefore(Seeker):
    def drawn(self, state: Memory) -> Tensor:
        return state.noise.normal(state.step - 1, 2)  # at step 1, that of the first decision


class ChoosesByTheSameNoise(Chooser):
    def drawn_share(self, state: Memory) -> Tensor:
        return state.noise.uniform(7, 1).to(state.memory)


# Faults of policies


class SwapsTheAxes(Seeker):
    def look_at(self, state: Memory, place: Tensor, scale: Tensor | None = None, made: Made = "given") -> Decision:
        return super().look_at(state, place.flip(1), scale, made)


class LooksInTheMiddle(Seeker):
    def look_at(self, state: Memory, place: Tensor, scale: Tensor | None = None, made: Made = "given") -> Decision:
        return super().look_at(state, torch.full_like(place, 0.5), scale, made)


class LooksTooFar(Seeker):
    def look_at(self, state: Memory, place: Tensor, scale: Tensor | None = None, made: Made = "given") -> Decision:
        return super().look_at(state, 2 * place - 0.5, scale, made)


class ForgetsHowItWasMade(Seeker):
    def look_at(self, state: Memory, place: Tensor, scale: Tensor | None = None, made: Made = "given") -> Decision:
        return super().look_at(state, place, scale)


class ForgetsTheSize(Seeker):
    sizes = (0.2, 0.8)

    def look_at(self, state: Memory, place: Tensor, scale: Tensor | None = None, made: Made = "given") -> Decision:
        return super().look_at(state, place, None, made)


class DrawsFromTorch(Seeker):
    def random_look(self, state: Memory) -> Decision:
        return self.look_at(state, torch.rand(len(state.memory), 2), made="sampled")


class LooksTwiceAtARandomPlace(Seeker):
    def random_look(self, state: Memory) -> Decision:
        return self.look_at(state, state.noise.uniform(7, 2), made="sampled")


# Training steps


def honest_step(model: Seeker, images: Tensor, labels: Tensor, phase: Any) -> dict[str, Tensor]:
    trace = rollout(model, images, noise=phase.noise, record=Record(every_step=True))
    log_prob = torch.stack([look.decision.log_prob for look in trace.looks], 1)
    right = (trace.logits.argmax(1) == labels).float()[:, None]
    return {
        "cross_entropy": F.cross_entropy(trace.logits, labels),
        "reinforce": reinforce(log_prob, (right - 0.5).expand_as(log_prob)),
    }


def no_reward(model: Seeker, images: Tensor, labels: Tensor, phase: Any) -> dict[str, Tensor]:
    return {"cross_entropy": honest_step(model, images, labels, phase)["cross_entropy"]}


def infinite(model: Seeker, images: Tensor, labels: Tensor, phase: Any) -> dict[str, Tensor]:
    return {"cross_entropy": honest_step(model, images, labels, phase)["cross_entropy"] / 0}


def without_gradient(model: Seeker, images: Tensor, labels: Tensor, phase: Any) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in honest_step(model, images, labels, phase).items()}


def for_nothing(model: Seeker, images: Tensor, labels: Tensor, phase: Any) -> dict[str, Tensor]:
    return {name: 0 * term for name, term in honest_step(model, images, labels, phase).items()}


def per_image(model: Seeker, images: Tensor, labels: Tensor, phase: Any) -> dict[str, Tensor]:
    return {name: term.expand(8) for name, term in honest_step(model, images, labels, phase).items()}


def counting(model: Seeker, images: Tensor, labels: Tensor, phase: Any, before: list[int] = []) -> dict[str, Tensor]:  # noqa: B006
    before.append(0)
    return {name: len(before) * term for name, term in honest_step(model, images, labels, phase).items()}


FAULTS: list[tuple[str, type[Seeker], str]] = [
    ("log-prob", ForgetsAnAxis, "log_prob is not that of the drawn regions"),
    ("log-prob", ScoresAnotherWidth, "log_prob is not that of the drawn regions"),
    ("log-prob", ScoresTheMean, "log_prob is not that of the drawn regions"),
    ("log-prob", ScoresNothing, "log_prob is not that of the drawn regions"),
    ("log-prob", ScoresUpsideDown, "log_prob is not that of the drawn regions"),
    ("log-prob", SaysAnotherEntropy, "expected the entropy to be minus the mean log-probability"),
    ("log-prob", TakesAllChoicesAsLikely, "log_prob is not that of the drawn regions"),
    ("log-prob", TakesEveryChoiceAsCertain, "the probabilities of 4 choices add up to 4"),
    ("noise", DrawsTheSameEverywhere, "comes from the same noise"),
    ("noise", DrawsLikeTheStepBefore, "steps 1 and 2 comes from the same noise"),
    ("noise", ChoosesByTheSameNoise, "comes from the same noise"),
    ("policies", SwapsTheAxes, "look_at moves by"),
    ("policies", LooksInTheMiddle, "look_at moves by (0, 0) in (x, y) if x goes from 0.1 to 0.9"),
    ("policies", LooksTooFar, "policy 'random': the centre of a region lies"),
    ("policies", ForgetsHowItWasMade, "look_at makes a decision that is 'given'"),
    ("policies", ForgetsTheSize, "look_at has regions of the scale 0.3, expected the 0.4"),
    ("policies", DrawsFromTorch, "policy 'random': images have other looks or outputs in another order"),
    ("policies", LooksTwiceAtARandomPlace, "policy 'random': what is drawn at steps"),
]


def case_of(kind: type[Seeker] = Seeker, step: Callable[..., Any] = honest_step) -> Case:
    return Case.of(made(kind, SeekerConfig), training=Training(step, (WITHOUT_RECIPE,)))


def found(rule: str, kind: type[Seeker] = Seeker, step: Callable[..., Any] = honest_step) -> Finding:
    return check_rule(rule, case_of(kind, step))


@pytest.mark.parametrize("kind", [Seeker, Chooser, Bent])
def test_honest_models_that_draw_keep_the_rules(kind: type[Seeker]) -> None:
    case = case_of(kind)
    findings = [check_rule(rule, case) for rule in (*NEW, "determinism", "gradient", "macs")]
    assert [(finding.rule, finding.status, finding.message) for finding in findings] == [(finding.rule, "ok", "") for finding in findings]
    assert findings[0].numbers["decisions"] == 3
    assert findings[2].numbers["followed"] == ["random", "centre", "scan", "entropy", "saliency", "oracle"]


def test_a_policy_that_is_broken_is_no_fault_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Policy:
        if name == "scan":
            raise ImportError("no module")
        return find_policy(name)

    monkeypatch.setattr(other_policies, "find_policy", find)
    finding = found("policies")
    assert (finding.status, finding.numbers["broken"]) == ("ok", ["scan"])
    assert finding.numbers["followed"] == ["random", "centre", "entropy", "saliency", "oracle"]


@pytest.mark.parametrize(("rule", "kind", "message"), FAULTS, ids=[kind.__name__ for _, kind, _ in FAULTS])
def test_a_fault_is_named_by_its_rule(rule: str, kind: type[Seeker], message: str) -> None:
    finding = found(rule, kind)
    assert finding.status == "failed"
    assert message in finding.message


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (no_reward, "no term of the loss has a gradient for where.weight, where.bias"),
        (infinite, "expected finite losses, got cross_entropy inf"),
        (without_gradient, "no term of the loss has a gradient"),
        (for_nothing, "the step changes no parameter, because every gradient is 0"),
        (per_image, "expected terms of the loss as tensors without dimensions, got cross_entropy"),
        (counting, "the same seed gives another step"),
    ],
)
def test_a_training_step_s_fault_is_named(step: Callable[..., Any], message: str) -> None:
    finding = found("training", step=step)
    assert (finding.status, finding.rule) == ("failed", "training")
    assert message in finding.message


def test_what_does_not_apply_is_skipped() -> None:
    model = Honest(HonestConfig(), TASK)
    case = Case.of(model)
    assert {rule: check_rule(rule, case).status for rule in NEW} == dict.fromkeys(NEW, "skipped")


def test_honest_draws_pass_under_any_noise() -> None:
    """The statistics of honest draws are those of a normal variable: far from the tolerance of 6 for every seed."""
    case, values = case_of(), list[float]()
    for seed in range(12):
        images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
        for drawn in _draws(case.model, replace(case, images=images), DRAWS):
            values += [value for name, value in _compared(drawn)[0].items() if name == "density, sd"]
    numbers = torch.tensor(values)
    assert len(numbers) == 36
    assert abs(numbers.mean()) < 1
    assert numbers.std() < 1.5
    assert numbers.max() < 4.5
