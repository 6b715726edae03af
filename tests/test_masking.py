"""The verdict on gradient masking: found for models made to hide their gradient, not found for honest ones, unsure where chance decides."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from models_to_attack import Net, digits, trained_net
from planted_models import HONEST, MASKED, SMALL, images_for, planted
from torch import Tensor

import glimpsezoo as gz
from glimpsezoo.conditions.attacks.base import attacker_noise
from glimpsezoo.conditions.attacks.victim import Victim
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.regions import Decision
from glimpsezoo.hashing import module_hash
from glimpsezoo.measures import gradient_masking, looks, masking_checks, statistics
from glimpsezoo.measures.derivatives import errors, inner_points
from glimpsezoo.measures.gradient_masking import Masking, masking
from glimpsezoo.measures.masking_checks import Sign, derivatives, gradient, randomness

QUICK_HONEST = ["net", "trained on attacks, dense", "trained on attacks, convolutions"]


def verdict_of(name: str, count: int, draw: int = 0) -> Masking:
    return masking(planted(name), *images_for(name, count, draw))


@pytest.mark.parametrize("name", SMALL)
def test_a_net_that_hides_its_gradient_is_found(name: str) -> None:
    found = verdict_of(name, 100)
    assert found.found, found.checks
    assert found.sure, found.checks


@pytest.mark.parametrize("count", [100, 500])
@pytest.mark.parametrize("name", QUICK_HONEST)
def test_an_honest_net_is_called_so(name: str, count: int) -> None:
    found = verdict_of(name, count)
    assert (found.found, found.sure, found.by) == (False, True, []), found.checks


@pytest.mark.slow
@pytest.mark.parametrize("count", [100, 500])
@pytest.mark.parametrize("name", MASKED)
def test_every_masked_model_is_found(name: str, count: int) -> None:
    found = verdict_of(name, count)
    assert found.found, found.checks


@pytest.mark.slow
@pytest.mark.parametrize(("count", "draw"), [(100, 0), (100, 1), (100, 2), (500, 0)])
@pytest.mark.parametrize("name", HONEST)
def test_every_honest_model_is_called_so(name: str, count: int, draw: int) -> None:
    found = verdict_of(name, count, draw)
    assert not found.found, found.checks


def test_a_verdict_that_other_images_might_turn_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from glimpsezoo.measures import gradient_masking as module

    def with_share(shown: int, count: int) -> tuple[bool, bool]:
        sign = Sign(torch.arange(count) < shown, 0.1)
        monkeypatch.setattr(module, "signs", lambda victims: {"planted": sign})
        found = verdict_of("net", count)
        return found.found, found.sure

    assert with_share(0, 100) == (False, True)
    assert with_share(8, 100) == (False, False)
    assert with_share(12, 100) == (True, False)
    assert with_share(60, 500) == (True, False)
    assert with_share(30, 500) == (False, True)
    assert with_share(40, 100) == (True, True)


def test_copies_of_one_source_are_not_more_images() -> None:
    """With every image five times, the intervals are those of the sources."""
    images, labels, ids = images_for("net", 100)
    alone = masking(planted("net"), images, labels, ids)
    copied = masking(planted("net"), images, labels, ids, groups=(torch.arange(100) // 5).numpy())
    assert copied.checks["gradient"]["high"] > alone.checks["gradient"]["high"]


def test_derivatives_of_a_known_function() -> None:
    """For the sum of sin(3 x), autograd and differences agree, at points whose pixels all differ."""
    images = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    noise = Noise.of(0, torch.arange(3))
    points = inner_points(images, noise)
    assert points.min() > 0
    assert len(points[0].unique()) == 16
    assert (errors(lambda x: (3 * x).sin().flatten(1).sum(1), points, noise) < 1e-7).all()
    assert errors(lambda x: (3 * x).sin().flatten(1).sum(1).detach(), points, noise).tolist() == [1, 1, 1]
    assert errors(lambda x: 0 * x.flatten(1).sum(1), points, noise).isnan().all()


def victim_of(model: Any, count: int = 8) -> tuple[Victim, Noise]:
    images, labels, ids = digits(count)
    start, run = attacker_noise(0, ids)
    return Victim(model, images, labels, run), start


def found_by_derivatives(model: Any) -> dict[str, Sign]:
    with torch.no_grad():
        return dict(derivatives(*victim_of(model)))


def test_without_memory_for_the_derivatives_there_is_no_verdict_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller batch may have room. A model that requires float32 has none at any size."""

    def fails(message: str) -> None:
        def exact(victim: Victim) -> Victim:
            raise RuntimeError(message)

        monkeypatch.setattr(masking_checks, "exact", exact)

    fails("expected scalar type Double but found Float")
    assert found_by_derivatives(gz.load("mgnet.digits")) == {}
    fails("CUDA out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        found_by_derivatives(gz.load("mgnet.digits"))


def found(sign: Sign) -> bool:
    return sign.shown.float().mean().item() > sign.limit


@pytest.mark.parametrize("name", ["mgnet.digits", "ranzato.digits", "pyramid-m3.digits"])
def test_the_locators_of_the_digits_cards_are_reached(name: str) -> None:
    signs = found_by_derivatives(gz.load(name))
    assert "locator" in signs
    assert not any(map(found, signs.values())), signs
    if name != "pyramid-m3.digits":  # its cells are sampled, for some images with near certainty, so that the gate passes no gradient
        assert not signs["locator"].shown.any()
        assert not signs["looks"].shown.any()


def scaled_locator(kind: type) -> type:
    """A locator whose gradient is a fiftieth of the true one."""

    def moved(decision: Decision, change: Callable[[Tensor], Tensor]) -> Decision:
        regions = decision.regions
        return replace(decision, regions=replace(regions, centre=change(regions.centre), scale=change(regions.scale)))

    def locate(self: Any, state: Any) -> Any:
        return moved(kind.locate(self, state), lambda number: 0.02 * number + (0.98 * number).detach())

    return type("Shy", (kind,), {"locate": locate})


@pytest.mark.parametrize("name", ["mgnet.digits", "ranzato.digits"])
def test_a_locator_whose_gradient_is_scaled_away_is_found(name: str) -> None:
    model = gz.load(name)
    model.__class__ = scaled_locator(type(model))
    assert found(found_by_derivatives(model)["looks"])


@pytest.mark.parametrize("name", ["hard places, mgnet", "blind locator, mgnet", "hard crops, ranzato", "blind locator, pyramid"])
def test_places_that_no_gradient_reaches_are_found(name: str) -> None:
    assert found(found_by_derivatives(planted(name))["locator"])


def test_glimpses_that_are_drawn_are_no_defensive_noise() -> None:
    with torch.no_grad():
        assert not randomness(*victim_of(gz.load("pyramid-m3.digits"))).shown.any()
        assert randomness(*victim_of(planted("defensive noise, mgnet.digits"))).shown.all()


@pytest.mark.parametrize("mask", ["detached", "not finite", "saturated", "jpeg-like"])
def test_a_card_without_a_gradient_is_found(mask: str) -> None:
    with torch.no_grad():
        assert found(gradient(*victim_of(planted(f"{mask}, mgnet.digits"))))
        assert not gradient(*victim_of(planted("mgnet.digits"))).shown.any()


def test_a_model_that_insists_on_float32_is_judged_by_the_other_checks() -> None:
    class Single(Net):
        def sense(self, images: Tensor, state: Any, regions: Any) -> Tensor:
            return super().sense(images, state, regions).float()

    model = planted("net")
    model.__class__ = Single
    told = masking(model, *images_for("net", 50))
    assert not told.found
    assert "margin" not in told.checks
    assert "black_box" in told.checks


@pytest.mark.parametrize(("module", "code_of"), [(gradient_masking, gradient_masking._code), (looks, looks.looks_code)])
def test_what_is_stored_with_intervals_is_measured_again_when_their_code_changes(
    module: ModuleType, code_of: Callable[[], list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, plain = code_of(), module_hash
    monkeypatch.setattr(module, "module_hash", lambda name: "other" if name == statistics.__name__ else plain(name))
    assert code_of() != before


def test_nothing_can_be_said_of_a_model_that_is_always_wrong() -> None:
    model, images, labels = trained_net()
    told = masking(model, images, (labels + 1) % 5, torch.arange(len(images)))
    assert (told.found, told.sure, told.checks["images"]["right"]) == (False, False, 0)
