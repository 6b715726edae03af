"""The conformance suite on planted faults: an honest model passes every rule, and each fault fails exactly the rule that it is for."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel, State
from glimpsezoo.core.regions import Decision, Regions
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.settings import Settings
from glimpsezoo.specs import Task
from glimpsezoo.testing import Case, Finding, check_model, check_rule, conformance, rules
from glimpsezoo.zoo.card_config import CardConfig, CardData, CardTask
from glimpsezoo.zoo.cards import write_card

TASK = Task(image_size=(16, 16), channels=1, classes=("a", "b", "c"))
SIDE, HIDDEN = 6, 12
OF_OTHERS = ("log-prob", "noise", "policies", "training")  # about models that draw, follow policies or train: test_conformance_decisions.py


class HonestConfig(Settings):
    looks: int = 3
    reach: float = 0.7
    """How far from the image's centre the centres of regions may lie; their scale is 0.3."""


@dataclass(frozen=True, kw_only=True)
class Memory(State):
    """memory: [B, 12]. reads: [B] how often it was classified; only a fault keeps it."""

    memory: Tensor
    reads: Tensor


class Honest(GlimpseModel[Any]):
    """The whole image, then wherever the memory leads."""

    def __init__(self, config: HonestConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task, self.steps = config, task, config.looks
        self.see = nn.Linear(task.channels * SIDE**2, HIDDEN)
        self.keep = nn.Linear(HIDDEN, HIDDEN)
        self.where = nn.Linear(HIDDEN, 2)
        self.head = nn.Linear(HIDDEN, len(task.classes))

    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        memory, reads = images.new_zeros(len(images), HIDDEN), images.new_zeros(len(images))
        return Memory(noise=noise, memory=memory, reads=reads), Decision.certain(Regions.whole_image(images))

    def sense(self, images: Tensor, state: Memory, regions: Regions) -> Tensor:
        scale, zero = regions.scale, torch.zeros_like(regions.scale)
        x, y = regions.centre.unbind(1)
        transform = torch.stack([scale, zero, x, zero, scale, y], 1).view(-1, 2, 3)
        grid = F.affine_grid(transform, [len(regions), images.shape[1], SIDE, SIDE], align_corners=False)
        return self.see(F.grid_sample(images[regions.image], grid, align_corners=False).flatten(1))

    def fuse(self, state: Memory, decision: Decision, features: Tensor) -> Memory:
        return replace(state, memory=torch.tanh(features + self.keep(state.memory)))

    def classify(self, state: Memory) -> Tensor:
        return self.head(state.memory)

    def locate(self, state: Memory) -> Decision:
        centre = self.config.reach * torch.tanh(4 * self.where(state.memory).to(self.where.weight))
        return Decision.certain(Regions.one_each(centre, 0.3), made="regressed")


# One fault per rule, named by the rule that it breaks


class AClassTooMany(Honest):
    def classify(self, state: Memory) -> Tensor:
        logits = super().classify(state)
        return torch.cat([logits, logits[:, :1]], 1)


class DrawsAndDoesNotSay(Honest):
    def locate(self, state: Memory) -> Decision:
        centre = 1.4 * (state.noise.uniform(state.step, 2).to(state.memory) - 0.5)
        return super().locate(replace(state, memory=state.memory + centre[:, :1]))


class SeesItsNeighbours(Honest):
    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        state, decision = super().start(images, noise)
        return replace(state, memory=state.memory + images.mean()), decision


class CountsRows(Honest):
    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        state, decision = super().start(images, noise)
        return replace(state, memory=state.memory + torch.arange(len(images))[:, None].to(images) / 10), decision


class RemembersOutsideTheState(Honest):
    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        self.brightness = images.mean((1, 2, 3))
        return super().start(images, noise)

    def fuse(self, state: Memory, decision: Decision, features: Tensor) -> Memory:
        mine = self.brightness[torch.arange(len(features)) % len(self.brightness)]
        return super().fuse(state, decision, features + mine[:, None])


class ForgetsRepeats(Honest):
    @dataclass(frozen=True, kw_only=True)
    class Once(Memory):
        def select(self, index: Tensor) -> Self:
            once = index.unique()
            return replace(self, noise=self.noise.select(index), memory=self.memory[once], reads=self.reads[once])

        @classmethod
        def join(cls, parts: Sequence[Self]) -> Self:
            return cls(**vars(Memory.join([Memory(**vars(part)) for part in parts])))

    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        state, decision = super().start(images, noise)
        return self.Once(**vars(state)), decision


class JoinsBackwards(Honest):
    @dataclass(frozen=True, kw_only=True)
    class Backwards(Memory):
        @classmethod
        def join(cls, parts: Sequence[Self]) -> Self:
            return cls(**vars(Memory.join([Memory(**vars(part)) for part in reversed(parts)])))

    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        state, decision = super().start(images, noise)
        return self.Backwards(**vars(state)), decision


class TiresOfBeingAsked(Honest):
    def classify(self, state: Memory) -> Tensor:
        state.reads.add_(1)
        return super().classify(state) / state.reads.clone()[:, None]


class LooksBesideTheImage(Honest):
    def locate(self, state: Memory) -> Decision:
        decision = super().locate(state)
        return replace(decision, regions=replace(decision.regions, centre=decision.regions.centre + 0.4))


class WorksHarderForSome(Honest):
    def classify(self, state: Memory) -> Tensor:
        hard = (state.memory[:, 0] > 0).nonzero().squeeze(1)
        more = self.head(self.keep(state.memory[hard]))
        return super().classify(state).index_add(0, hard, more)


class CutsTheGradient(Honest):
    def locate(self, state: Memory) -> Decision:
        return super().locate(replace(state, memory=state.memory.detach()))


class KeepsSomethingBeside(Honest):
    def __init__(self, config: HonestConfig, task: Task) -> None:
        super().__init__(config, task)
        self.bias = torch.randn(len(task.classes))  # neither a parameter nor a buffer

    def classify(self, state: Memory) -> Tensor:
        return super().classify(state) + self.bias


class NeedsEvenSides(Honest):
    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        halves = images.unflatten(2, (2, -1)).mean((1, 3, 4))  # [B, 2]
        state, decision = super().start(images, noise)
        return replace(state, memory=state.memory + halves[:, :1]), decision


class NeedsCompany(Honest):
    def classify(self, state: Memory) -> Tensor:
        return super().classify(state).squeeze(0)


class NeedsAlternatives(Honest):
    def classify(self, state: Memory) -> Tensor:
        logits = super().classify(state)
        return logits / logits.std(1, keepdim=True, correction=0)


class InsistsOnFloat32(Honest):
    def fuse(self, state: Memory, decision: Decision, features: Tensor) -> Memory:
        return super().fuse(state, decision, features @ torch.eye(HIDDEN))


class RoundsPlaces(Honest):
    def locate(self, state: Memory) -> Decision:
        return Decision.certain(Regions.one_each(self.config.reach * torch.tanh(4 * self.where(state.memory)), 0.3), made="regressed")


FAULTS: dict[str, type[Honest]] = {
    "shapes": AClassTooMany,
    "determinism": DrawsAndDoesNotSay,
    "batch": SeesItsNeighbours,
    "order": CountsRows,
    "compaction": RemembersOutsideTheState,
    "gather": ForgetsRepeats,
    "join": JoinsBackwards,
    "prefix": TiresOfBeingAsked,
    "regions": LooksBesideTheImage,
    "macs": WorksHarderForSome,
    "gradient": CutsTheGradient,
    "round-trip": KeepsSomethingBeside,
    "odd-size": NeedsEvenSides,
    "batch-of-one": NeedsCompany,
    "one-class": NeedsAlternatives,
    "float64": InsistsOnFloat32,
    "bfloat16": RoundsPlaces,
}


def made(kind: Callable[..., Honest] = Honest, **settings: Any) -> Honest:
    """A model with the same weights in every call, large enough that images and steps differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(HonestConfig(**settings), TASK)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()


def config_of(model: Honest) -> CardConfig:
    return CardConfig(
        name="honest.made-up",
        model="honest",
        plugin="tests",
        config=model.config.model_dump(mode="json"),
        task=CardTask.model_validate(vars(TASK)),
        data=CardData(name="made-up"),
        weights=None,
    )


def broken(findings: list[Finding]) -> list[str]:
    return [finding.rule for finding in findings if not finding.passed]


def found(rule: str, model: Honest) -> Finding:
    return check_rule(rule, Case.of(model))


def test_an_honest_model_keeps_every_rule(tmp_path: Path) -> None:
    model = made()
    card = write_card(tmp_path, config_of(model), model)
    findings = check_model(model, card=card)
    expected = {rule: "skipped" if rule in OF_OTHERS else "ok" for rule in rules()}
    assert {finding.rule: finding.status for finding in findings} == expected
    assert all(finding.sentence.endswith(".") and (finding.numbers or finding.rule in OF_OTHERS) for finding in findings)


@pytest.mark.parametrize("rule", FAULTS)
def test_a_fault_is_caught_by_its_rule_alone(rule: str) -> None:
    findings = check_model(made(FAULTS[rule]))
    assert broken(findings) == [rule], "\n".join(map(str, findings))
    finding = next(finding for finding in findings if finding.rule == rule)
    assert finding.message
    assert "\n" not in str(finding)


def test_weights_that_are_not_the_card_s_are_caught_by_its_rule_alone(tmp_path: Path) -> None:
    model = made()
    card = write_card(tmp_path, config_of(model), model)
    with torch.no_grad():
        model.head.bias[0] += 1e-3
    findings = check_model(model, card=card)
    assert broken(findings) == ["card"]
    assert "tensor head.bias has other values" in next(finding.message for finding in findings if finding.rule == "card")


def test_every_rule_has_a_fault() -> None:
    assert set(FAULTS) | {"card", *OF_OTHERS} == set(rules())


# The numbers are right


def test_the_numbers_are_those_of_the_fault() -> None:
    assert found("shapes", made(AClassTooMany)).message == "expected logits [8, 3] at step 1, got [8, 4]"
    macs = found("macs", made(WorksHarderForSome)).numbers
    some = HIDDEN * HIDDEN + HIDDEN * 3
    assert (macs["full count"] - macs["sum"]) % some == 0
    assert macs["classify"] in (HIDDEN * 3, HIDDEN * 3 + some)
    honest = found("macs", made()).numbers
    one_look = SIDE**2 * HIDDEN, HIDDEN * HIDDEN
    assert [honest[phase] for phase in ("start", "sense", "fuse", "locate", "classify")] == [0, 3 * one_look[0], 3 * one_look[1], 48, 36]
    assert honest["sum"] == honest["full count"] == 8 * (3 * sum(one_look) + 48 + 36)


def test_regions_are_measured_in_pixels() -> None:
    model = made()
    with torch.no_grad():
        model.where.weight.zero_()
        model.where.bias.copy_(torch.tensor([10.0, 0.0]))  # tanh(40) is 1
    model.config = HonestConfig(reach=0.8)  # the edge is at 1.1: a tenth of 8 px outside
    finding = found("regions", model)
    assert finding.status == "failed"
    assert finding.numbers["furthest edge outside, px"] == pytest.approx(0.8, abs=1e-4)
    model.config = HonestConfig(reach=0.76)  # .48 px: within half a pixel
    assert found("regions", model).status == "ok"


def test_declared_padding_is_for_edges_but_not_for_centres() -> None:
    model = made(reach=0.9)
    assert found("regions", model).status == "failed"
    model.padding = "zeros"
    assert found("regions", model).status == "ok"
    model.config = HonestConfig(reach=1.4)
    assert re.search(r"centre .* px outside the image", found("regions", model).message)


# What is declared is checked both ways


def test_stochastic_is_what_other_noise_shows() -> None:
    model = made(DrawsAndDoesNotSay)
    model.stochastic = True
    assert broken(check_model(model)) == []
    quiet = made()
    quiet.stochastic = True
    assert broken(check_model(quiet)) == ["determinism"]


def test_torch_s_own_generator_is_no_source_of_randomness() -> None:
    class Careless(Honest):
        stochastic = True

        def locate(self, state: Memory) -> Decision:
            return super().locate(replace(state, memory=state.memory + torch.rand_like(state.memory)))

    before = torch.random.get_rng_state()
    finding = found("determinism", made(Careless))
    assert "torch's generator" in finding.message
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_surrogate_must_have_a_gradient_and_a_gradient_of_hard_choices_a_surrogate() -> None:
    class Hard(Honest):
        def locate(self, state: Memory) -> Decision:
            regions = super().locate(state).regions
            return Decision.certain(replace(regions, centre=(regions.centre * 4).round().detach() / 4), made="mode")

    class Soft(Honest):
        def locate(self, state: Memory) -> Decision:
            return replace(super().locate(state), made="mode")

    hard, soft = made(Hard), made(Soft)
    assert found("gradient", hard).status == "ok"
    assert "declare the surrogate" in found("gradient", soft).message
    hard.surrogate = soft.surrogate = "straight through"
    assert "no gradient passes through the decisions" in found("gradient", hard).message
    assert found("gradient", soft).status == "ok"


def test_a_model_without_any_gradient_is_named() -> None:
    class Blind(Honest):
        def sense(self, images: Tensor, state: Memory, regions: Regions) -> Tensor:
            return super().sense(images.detach(), state, replace(regions, centre=regions.centre.detach()))

    assert "no gradient of the logits reaches the pixels" in found("gradient", made(Blind)).message


# Refusals, skips and unknown names


@dataclass(frozen=True)
class Refusal:
    text: str
    status: str


@pytest.mark.parametrize("refusal", [Refusal("expected even sides, got odd ones", "refused"), Refusal("two\nlines", "failed")])
def test_a_model_may_refuse_sizes_in_one_line(refusal: Refusal) -> None:
    class Choosy(Honest):
        def __init__(self, config: HonestConfig, task: Task) -> None:
            if task.image_size[0] % 2:
                raise GlimpseZooError(refusal.text)
            super().__init__(config, task)

    finding = found("odd-size", made(Choosy))
    assert (finding.status, finding.message) == (refusal.status, refusal.text.replace("\n", " "))
    assert finding.passed == (refusal.status == "refused")


def test_a_refusal_where_none_is_allowed_is_a_failure() -> None:
    class Shy(Honest):
        def locate(self, state: Memory) -> Decision:
            raise GlimpseZooError("not now")

    statuses = {finding.rule: finding.status for finding in check_model(made(Shy))}
    assert statuses["prefix"] == statuses["batch"] == "failed"


def test_a_model_of_one_look_has_no_exits_and_one_without_a_card_no_card() -> None:
    statuses = {finding.rule: finding.status for finding in check_model(made(looks=1))}
    assert {rule for rule, status in statuses.items() if status == "skipped"} == {"compaction", "card", *OF_OTHERS}
    assert set(statuses.values()) == {"ok", "skipped"}


def test_the_model_is_left_as_it_is_and_own_images_are_used() -> None:
    model = made().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    findings = check_model(model, torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert broken(findings) == []
    assert next(finding for finding in findings if finding.rule == "shapes").numbers["logits"] == [5, 3]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_conformance_asserts_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glimpsezoo.testing.suite.create_model", lambda name, **settings: made(LooksBesideTheImage, **settings))
    assert conformance("beside", "shapes", reach=0.5).status == "ok"
    with pytest.raises(AssertionError, match=r"beside breaks the rule 'regions' .* px beyond the image: .*\[regions 24, "):
        conformance("beside", "regions")


def test_a_card_is_checked_by_its_name() -> None:
    finding = conformance("cnn4.digits", "card")
    assert (finding.status, finding.numbers["measured"], finding.numbers["changed"]) == ("ok", "yes", 0)


def test_an_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(GlimpseZooError, match=r"expected a rule of the conformance suite, got 'prefx': did you mean 'prefix'\?"):
        conformance("cnn4", "prefx", data="digits")
