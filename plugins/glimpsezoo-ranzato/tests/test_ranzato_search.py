"""Equations 9 to 18: the search by brute force, and every term of the loss, against plain loops in numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from glimpsezoo_ranzato.model import GlimpseState, Ranzato
from glimpsezoo_ranzato.training import Searched, search_around, training_step
from torch import Tensor

from glimpsezoo import GlimpseZooError, Record, State, TrainingPhase, rollout

STRONG = {"diversity_weight": 2.0, "diversity_variance": 0.01}  # strong enough to change what the search finds


def searched(model: Ranzato, images: Tensor, labels: Tensor, glimpse: int) -> Searched:
    """What the search finds for a glimpse, with the earlier ones at the predicted places."""
    trace = rollout(model, images, steps=glimpse + 1, record=Record(states=True))
    state: State | None = trace.looks[glimpse - 1].state
    assert isinstance(state, GlimpseState)
    return search_around(model, images, labels, state, trace.looks[glimpse].decision)


def brute_force(loops: Any, image: np.ndarray, label: int, glimpse: int) -> tuple[int, int]:
    """The places of the grid, by number, where L is least for the right class (12), and for any other (15)."""
    grid = loops.grid(loops.run(image)[1][glimpse - 1])
    losses = np.array([loops.losses(image, glimpse, place) for place in grid])  # [9, classes]
    wrong = np.delete(losses, label, axis=1)
    return int(losses[:, label].argmin()), int(wrong.min(axis=1).argmin())


@pytest.mark.parametrize("settings", [{}, STRONG, {"location_weight": 0.0, "search_pixels": 3.0}, {"shared": True}], ids=str)
@pytest.mark.parametrize("glimpse", [1, 2, 3])
def test_the_search_finds_the_least_loss_of_all_nine(
    small: Callable[..., Ranzato], reference: Any, images: Tensor, labels: Tensor, glimpse: int, settings: dict[str, Any]
) -> None:
    model = small(**settings)
    loops = reference(model)
    decision = searched(model, images, labels, glimpse)
    assert decision.made == "searched"
    torch.testing.assert_close(decision.regions.centre, 2 * decision.best - 1)
    picks = []
    for row, image in enumerate(images.numpy()):
        grid = loops.grid(loops.run(image)[1][glimpse - 1])
        best, offending = brute_force(loops, image, int(labels[row]), glimpse)
        np.testing.assert_allclose(decision.best[row], grid[best], atol=1e-5)
        np.testing.assert_allclose(decision.offending[row], grid[offending], atol=1e-5)
        picks.append((best, offending))
    assert len({best for best, _ in picks}) > 2, "the search hardly moves: this test would not see a wrong one"
    assert any(best != offending for best, offending in picks)


def test_the_low_resolution_loss_takes_part_in_the_first_search_alone(
    small: Callable[..., Ranzato], images: Tensor, labels: Tensor
) -> None:
    """E_0(X_low, y) is one number for every place, but not for every class: it can change which place is most offending (15)."""
    model, plain = small(), small()
    with torch.no_grad():
        model.low.second.bias += torch.tensor([3.0, 0.0, -3.0])  # E_0 changes, and y with it ...
        for network in (*model.glimpses,):
            network.second.bias -= torch.tensor([3.0, 0.0, -3.0])  # ... but y after one glimpse does not
        model.locators[0].bias -= model.locators[0].weight[:, -3:] @ torch.tensor([3.0, 0.0, -3.0])  # nor does the predicted place
    with_other_low, as_it_was = searched(model, images, labels, 1), searched(plain, images, labels, 1)
    torch.testing.assert_close(with_other_low.best, as_it_was.best)
    assert not torch.equal(with_other_low.offending, as_it_was.offending)


@pytest.mark.parametrize("glimpse", [1, 2, 3])
def test_every_term_of_the_loss(
    small: Callable[..., Ranzato], reference: Any, images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase], glimpse: int
) -> None:
    model = small(**STRONG, contrast_weight=0.5)
    terms = training_step(model, images, labels, phase(12, glimpse=glimpse))
    loops = reference(model)
    expected: dict[str, list[float]] = {name: [] for name in ("low", "glimpse", "offending", "location", "diversity")}
    for row, image in enumerate(images.numpy()):
        label = int(labels[row])
        steps, predicted = loops.run(image)
        location = predicted[glimpse - 1]
        best, offending = (loops.grid(location)[i] for i in brute_force(loops, image, label, glimpse))
        before: list[Any] = [None] * (glimpse - 1)
        expected["low"].append(cross_entropy(steps[0], label))
        expected["glimpse"].append(cross_entropy(loops.run(image, [*before, best])[0][glimpse], label))
        expected["offending"].append(0.5 * cross_entropy(loops.run(image, [*before, offending])[0][glimpse], label))
        expected["location"].append(100 / 2 * ((location[0] - best[0]) ** 2 + (location[1] - best[1]) ** 2))
        expected["diversity"].append(loops.diversity(image, glimpse, best))
    del expected["diversity" if glimpse == 1 else "low"]
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {name: np.mean(values) for name, values in expected.items()}, rel=1e-3, abs=1e-5
    )


def cross_entropy(logits: np.ndarray, label: int) -> float:
    return float(np.log(np.exp(logits).sum()) - logits[label])


def test_terms_can_be_left_out(small: Callable[..., Ranzato], images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase]) -> None:
    def terms(glimpse: int, **settings: Any) -> set[str]:
        return set(training_step(small(**settings), images, labels, phase(12, glimpse=glimpse)))

    assert terms(1) == {"low", "glimpse", "offending", "location"}
    assert terms(2) == {"glimpse", "offending", "location", "diversity"}
    assert terms(1, contrast_weight=0) == {"low", "glimpse", "location"}
    assert terms(2, diversity_weight=0) == {"glimpse", "offending", "location"}
    assert terms(1, policy="centre") == {"low", "glimpse"}  # nothing to search


def test_the_gradient_takes_z_as_fixed(
    small: Callable[..., Ranzato], images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase]
) -> None:
    """Only the location term towards z* trains where to look (13, 14); the penalty of equation 18 only steers the search."""
    model = small(**STRONG)
    terms = training_step(model, images, labels, phase(12, glimpse=2))
    locator = model.locators[1].weight
    for name in ("glimpse", "offending"):
        assert torch.autograd.grad(terms[name], locator, retain_graph=True, allow_unused=True) == (None,)
    assert not terms["diversity"].requires_grad
    (pull,) = torch.autograd.grad(terms["location"], locator)

    decision = searched(model, images, labels, 2)
    prediction = decision.predicted.detach()
    by_hand = 100 * (prediction - decision.best) * prediction * (1 - prediction)  # through the sigmoid
    trace = rollout(model, images, record=Record(states=True))
    state = trace.looks[1].state
    assert isinstance(state, GlimpseState)
    evidence = torch.cat([state.hidden, state.low + state.glimpsed], 1)
    torch.testing.assert_close(pull, by_hand.T @ evidence / 12, rtol=1e-3, atol=1e-5)


def test_fine_tuning_looks_where_the_model_predicts(
    small: Callable[..., Ranzato], images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase]
) -> None:
    model = small()
    terms = training_step(model, images, labels, phase(12, glimpse=2, search=False))
    assert set(terms) == {"glimpse"}
    at_prediction = F.cross_entropy(rollout(model, images, steps=3).logits, labels)
    torch.testing.assert_close(terms["glimpse"], at_prediction)
    assert training_step(model, images, labels, phase(12, glimpse=2))["glimpse"] != at_prediction


@pytest.mark.parametrize("options", [{"glimpse": 4}, {"glimpse": -1}, {"glimpse": "1"}, {"search": "no"}, {"glimpses": 1}], ids=str)
def test_phase_options_are_checked(
    small: Callable[..., Ranzato], images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase], options: dict[str, Any]
) -> None:
    with pytest.raises(GlimpseZooError, match="training phase, got") as caught:
        training_step(small(), images, labels, phase(12, **options))
    assert "\n" not in str(caught.value)
