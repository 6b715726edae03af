"""The conformance suite on planted faults: an honest model passes every rule, and each fault fails exactly the rule that it is for."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from faulty_models import (
    FAULTS,
    HIDDEN,
    OF_OTHERS,
    SIDE,
    TASK,
    AClassTooMany,
    DrawsAndDoesNotSay,
    Honest,
    HonestConfig,
    LooksBesideTheImage,
    Memory,
    WorksHarderForSome,
    made,
)
from torch import Tensor

from glimpsezoo.core.regions import Decision, Regions
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import Task
from glimpsezoo.testing import Case, Finding, check_model, check_rule, conformance, rules
from glimpsezoo.zoo.card_config import CardConfig, CardData, CardTask
from glimpsezoo.zoo.cards import write_card


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
