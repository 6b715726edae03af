"""The gradient-masking verdict: models made to hide their gradient are unreliable, ordinary trained ones are ok."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from models_to_attack import Net, digits, trained_net
from torch import Tensor

import glimpsezoo as gz
from glimpsezoo.conditions.attacks.gradient import PGD
from glimpsezoo.conditions.attacks.settings import PGDSettings
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.regions import Decision
from glimpsezoo.measures import gradient_masking as module
from glimpsezoo.measures.derivatives import compare, inner_points
from glimpsezoo.measures.gradient_masking import Masking, MaskingSettings, masking

QUICK = MaskingSettings.parse({"steps": 15, "queries": 200}, owner="masking")


class Saturated(Net):
    """Logits so large that the cross entropy has no gradient in float32."""

    def classify(self, state: Any) -> Tensor:
        return 1e4 * super().classify(state)


class Quantised(Net):
    """Rounds pixels to 13 levels first: a step function."""

    def sense(self, images: Tensor, state: Any, regions: Any) -> Tensor:
        return (super().sense(images, state, regions) * 12).round() / 12


class Scaled(Net):
    """The backward pass returns a twentieth of the true gradient."""

    def sense(self, images: Tensor, state: Any, regions: Any) -> Tensor:
        pixels = super().sense(images, state, regions)
        return 0.05 * pixels + (0.95 * pixels).detach()


def planted(kind: type[Net]) -> Net:
    """The trained net with another class."""
    model = copy.deepcopy(trained_net()[0])
    model.__class__ = kind
    return model


def verdict_of(model: Any) -> Masking:
    _, images, labels = trained_net()
    return masking(model, images, labels, torch.arange(len(images)), QUICK)


def bad(found: Masking) -> set[str]:
    return {name for name, check in found.checks.items() if check["verdict"] == "unreliable"}


def test_an_honest_net_is_ok() -> None:
    found = verdict_of(planted(Net))
    assert found.verdict == "ok", found.checks
    assert found.checks["huge_eps"]["accuracy"] == 0
    assert found.checks["loss_in_eps"]["loss"] == sorted(found.checks["loss_in_eps"]["loss"])
    assert found.checks["margin"]["factor"] == pytest.approx(1, abs=1e-6)
    assert "locator" not in found.checks  # it has one step


@pytest.mark.parametrize(
    ("kind", "by"),
    [(Saturated, {"huge_eps", "loss_gradient"}), (Quantised, {"loss_gradient"}), (Scaled, {"margin"})],
)
def test_a_net_that_hides_its_gradient_is_unreliable(kind: type[Net], by: set[str]) -> None:
    found = verdict_of(planted(kind))
    assert found.verdict == "unreliable"
    assert by <= bad(found), found.checks


def test_the_factor_of_a_scaled_gradient_is_measured() -> None:
    found = verdict_of(planted(Scaled)).checks["margin"]
    assert found["factor"] == pytest.approx(0.05, rel=1e-5)
    assert found["error"] == pytest.approx(0.95, rel=1e-5)


def test_a_black_box_that_breaks_more_is_masking() -> None:
    check = verdict_of(planted(Saturated)).checks["black_box"]
    assert check["only_black"] > check["only_white"]
    assert check["p"] < 0.05
    assert check["verdict"] == "unreliable"


def test_a_loss_that_falls_with_eps_is_masking(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.5, 1.0, 0.96, 3.0, 1.2, 9.0])
    monkeypatch.setattr(module, "_ascent", lambda victim, noise, settings, eps, steps: (torch.full((40,), next(losses)), torch.ones(40)))
    check = verdict_of(planted(Net)).checks["loss_in_eps"]
    assert check["largest_fall"] == pytest.approx(0.6)
    assert check["verdict"] == "unreliable"


def test_a_reported_attack_is_held_against_a_longer_one() -> None:
    model, (_, images, labels) = planted(Net), trained_net()
    settings = MaskingSettings.parse({"steps": 5, "queries": 20, "strong_steps": 30}, owner="masking")

    def reported(**given: Any) -> dict[str, Any]:
        attack = PGD(PGDSettings.parse({"eps": 0.3, **given}, owner="pgd"))
        return masking(model, images, labels, torch.arange(len(images)), settings, attack).checks["reported"]

    weak, long = reported(steps=1, step_size=0.001), reported(steps=30)
    assert (weak["verdict"], long["verdict"]) == ("unreliable", "ok")
    assert weak["only_stronger"] > 0.5 * len(images)
    assert weak["only_reported"] == 0
    assert (weak["attack"], weak["eps"], weak["steps"]) == ("pgd", 0.3, 30)


@pytest.mark.parametrize(
    ("only_stronger", "only_reported", "n", "verdict"),
    [(8, 0, 50, "ok"), (80, 0, 500, "suspect"), (14, 0, 50, "suspect"), (20, 0, 50, "unreliable"), (2, 0, 5, "ok"), (20, 18, 50, "ok")],
)
def test_what_a_longer_attack_gains_has_to_be_more_than_chance(only_stronger: int, only_reported: int, n: int, verdict: str) -> None:
    """Eight of 50 are 16 points, six above the bound, but the interval contains the bound."""
    found = module._gain(only_stronger, only_reported, n)
    assert found["verdict"] == verdict, found
    assert found["low"] <= found["gain"] == (only_stronger - only_reported) / n <= found["high"]


def test_derivatives_of_a_known_function() -> None:
    """For the sum of sin(3 x), autograd and differences agree, at points whose pixels all differ."""
    images = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    noise = Noise.of(0, torch.arange(3))
    points = inner_points(images, noise)
    assert points.min() > 0
    assert len(points[0].unique()) == 16
    found = compare(lambda x: (3 * x).sin().flatten(1).sum(1), points, noise)
    assert found.pairs == 3 * 4
    assert found.zero == 0
    assert found.factor == pytest.approx(1, abs=1e-7)
    flat = compare(lambda x: (3 * x).sin().flatten(1).sum(1).detach(), points, noise)
    assert (flat.zero, flat.factor) == (1, 0)
    assert compare(lambda x: 0 * x.flatten(1).sum(1), points, noise).pairs == 0


def moved(decision: Decision | None, change: Callable[[Tensor], Tensor]) -> Decision:
    """The same decision with its regions passed through `change`, which affects only their gradient."""
    assert decision is not None
    regions = decision.regions
    return replace(decision, regions=replace(regions, centre=change(regions.centre), scale=change(regions.scale)))


@pytest.fixture
def only_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the attacks, which work alike for every model and are slow."""
    monkeypatch.setattr(module, "_by_attacks", lambda victim, noise, settings: {})


@pytest.mark.usefixtures("only_derivatives")
@pytest.mark.parametrize("name", ["mgnet.digits", "ranzato.digits", "pyramid-m3.digits"])
def test_the_locators_of_the_digits_cards_are_reached(name: str) -> None:
    images, labels, ids = digits(8)
    model = gz.load(name)
    found = masking(model, images, labels, ids, QUICK)
    if name == "pyramid-m3.digits":  # its regions are sampled, for some images with near certainty, so that the gate passes no gradient
        assert found.checks["locator"] == {"reached": 0.5, "surrogate": model.surrogate, "verdict": "suspect"}
        assert {name for name, check in found.checks.items() if check["verdict"] != "ok"} == {"locator"}
        return
    assert found.verdict == "ok", found.checks
    assert found.checks["locator"] == {"reached": 1.0, "surrogate": model.surrogate, "verdict": "ok"}
    assert found.checks["looks"]["factor"] == pytest.approx(1, abs=1e-4)


@pytest.mark.usefixtures("only_derivatives")
@pytest.mark.parametrize("name", ["mgnet.digits", "ranzato.digits"])
def test_a_locator_whose_gradient_is_scaled_away_is_unreliable(name: str) -> None:
    images, labels, ids = digits(8)
    model = gz.load(name)
    kind = type(model)

    class Shy(kind):  # type: ignore[valid-type,misc]
        def locate(self, state: Any) -> Any:
            return moved(super().locate(state), lambda number: 0.02 * number + (0.98 * number).detach())

    model.__class__ = Shy
    found = masking(model, images, labels, ids, QUICK)
    assert "looks" in bad(found), found.checks
    assert found.verdict == "unreliable"


@pytest.mark.usefixtures("only_derivatives")
@pytest.mark.parametrize("name", ["mgnet.digits", "ranzato.digits", "pyramid-m3.digits"])
def test_a_locator_that_no_gradient_passes_is_unreliable(name: str) -> None:
    images, labels, ids = digits(8)
    model = gz.load(name)
    kind = type(model)

    class Blind(kind):  # type: ignore[valid-type,misc]
        def locate(self, state: Any) -> Any:
            with torch.no_grad():
                return super().locate(state)

    model.__class__ = Blind
    found = masking(model, images, labels, ids, QUICK)
    assert "locator" in bad(found), found.checks


@pytest.mark.usefixtures("only_derivatives")
def test_hard_choices_without_a_surrogate_are_suspect() -> None:
    images, labels, ids = digits(8)
    model = gz.load("pyramid-m3.digits")
    model.surrogate = None
    assert masking(model, images, labels, ids, QUICK).checks["locator"]["verdict"] == "suspect"


@pytest.mark.usefixtures("only_derivatives")
def test_a_model_that_insists_on_float32_is_suspect() -> None:
    class Single(Net):
        def sense(self, images: Tensor, state: Any, regions: Any) -> Tensor:
            return super().sense(images, state, regions).float()

    found = verdict_of(planted(Single))
    assert found.verdict == "suspect"
    assert "float64" in found.checks


def test_nothing_can_be_said_of_a_model_that_is_always_wrong() -> None:
    model, images, labels = trained_net()
    found = masking(model, images, (labels + 1) % 5, torch.arange(len(images)), QUICK)
    assert (found.verdict, found.checks["images"]["right"]) == ("suspect", 0)
