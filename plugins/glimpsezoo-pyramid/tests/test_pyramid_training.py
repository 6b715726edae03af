"""Learning rules 1 to 6, term by term, against numbers computed here."""

import math
from typing import Any

import pytest
import torch
from glimpsezoo_pyramid import baselines
from glimpsezoo_pyramid.baselines import Baseline1
from glimpsezoo_pyramid.config import BaselineConfig, LearningRule, PyramidConfig
from glimpsezoo_pyramid.model import Pyramid, PyramidM1
from glimpsezoo_pyramid.training import choices_of, location_terms, training_step
from torch import Tensor

from glimpsezoo import GlimpseZooError, Noise, Record, Task, TrainingPhase, rollout

TASK = Task((56, 56), 1, ("a", "b", "c", "d"))
EVERY = Record(every_step=True, states=True)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def model_of(bias: float = -1.8, **settings: Any) -> Pyramid:
    torch.manual_seed(0)
    model = PyramidM1(PyramidConfig(**settings), TASK)
    with torch.no_grad():
        model.location.bias.add_(torch.linspace(bias - 0.5, bias + 0.5, 9))
    return model


def images_of(count: int = 6) -> Tensor:
    return torch.rand(count, 1, 56, 56, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.3, 1, count)[:, None, None, None]


def phase_of(memory: dict[str, Tensor] | None = None, seed: int = 0, **options: Any) -> TrainingPhase:
    noise = Noise.of(seed, torch.arange(6))
    return TrainingPhase(name="test", options=options, step=0, steps=1, epoch=0, noise=noise, memory={} if memory is None else memory)


def reached(model: Pyramid, loss: Tensor) -> set[str]:
    """The modules that get a gradient from `loss`."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_gradients_stop_before_the_location_module() -> None:
    model = model_of()
    terms = training_step(model, images_of(), LABELS, phase_of(c_t=6))
    assert reached(model, terms["cross_entropy"]) == {"features", "aggregation", "merging", "classification"}
    for name in ("reinforce", "cost", "diversity"):
        assert reached(model, terms[name]) == {"location"}, name


def test_cost_and_diversity_terms_are_eqs_2_3_14_15() -> None:
    """Computed from the probabilities of a trace, grid by grid."""
    model, samples = model_of(), 3
    rows = torch.arange(6).repeat_interleave(samples)
    noise = phase_of().noise.select(rows).fork(torch.arange(samples).repeat(6))
    trace = rollout(model, images_of()[rows], noise=noise, record=EVERY)
    grids: list[list[float]] = []
    expected = [0.0] * len(rows)
    for look in trace.looks[:2]:
        assert look.state is not None
        logits = model.cell_logits(look.state)
        for image, row in zip(look.state.frontier.image.tolist(), logits.sigmoid().tolist(), strict=True):
            grids.append(row)
            expected[look.rows[image]] += sum(row)
    assert {len(rows), sum(expected) > 0} == {18, True}
    r_t = -0.3 / 2 * (sum(expected) / len(rows) - 2.5) ** 2
    p_k = [sum(grid[k] for grid in grids) / len(grids) for k in range(9)]
    r_r = -0.7 * sum((p - 0.2) ** 2 / 2 for p in p_k) / 9
    terms = training_step(model, images_of(), LABELS, phase_of(samples=samples, lambda_t=0.3, lambda_r=0.7, c_t=2.5, c_r=0.2))
    assert terms["cost"].item() == pytest.approx(-r_t, rel=1e-4)
    assert terms["diversity"].item() == pytest.approx(-r_r, rel=1e-4)


def test_reinforce_counts_every_choice_also_of_no_cell() -> None:
    """Its value is -lambda_f mean (log p(y | l) - b) log p(l), with eq. 8a over all grids, including those of images that stopped."""
    model, baseline = model_of(-2.8), -0.6
    rows = torch.arange(6).repeat_interleave(2)
    noise = phase_of().noise.select(rows).fork(torch.arange(2).repeat(6))
    trace = rollout(model, images_of()[rows], noise=noise, record=EVERY)
    assert {1, 2} <= set(trace.last_step.tolist())
    log_prob = [0.0] * len(rows)
    for look in trace.looks[:2]:
        assert look.state is not None
        frontier, logits = look.state.frontier, model.cell_logits(look.state)
        draws = look.state.noise.uniform(look.state.step, 9, image=frontier.image, lane=frontier.path)
        for image, ps, us in zip(frontier.image.tolist(), logits.sigmoid().tolist(), draws.tolist(), strict=True):
            log_prob[look.rows[image]] += sum(math.log(p if u < p else 1 - p) for p, u in zip(ps, us, strict=True))
    likelihood = trace.logits.log_softmax(1)[torch.arange(len(rows)), LABELS[rows]].tolist()
    value = -0.5 * sum((a - baseline) * b for a, b in zip(likelihood, log_prob, strict=True)) / len(rows)
    memory = {"baseline of 3 levels": torch.tensor(baseline)}
    terms = training_step(model, images_of(), LABELS, phase_of(memory, lambda_f=0.5))
    assert terms["reinforce"].item() == pytest.approx(value, rel=1e-3)
    assert terms["cross_entropy"].item() == pytest.approx(-sum(likelihood) / len(rows), rel=1e-5)


def test_moving_baseline_is_eq_12() -> None:
    model, memory = model_of(), {}
    first = training_step(model, images_of(), LABELS, phase_of(memory))["cross_entropy"].item()
    (name,) = memory
    assert memory[name].item() == pytest.approx(0.9 * math.log(1 / 4) - 0.1 * first, rel=1e-5)
    before = memory[name].item()
    second = training_step(model, images_of(), LABELS, phase_of(memory, seed=1))["cross_entropy"].item()
    assert memory[name].item() == pytest.approx(0.9 * before - 0.1 * second, rel=1e-5)
    assert not memory[name].requires_grad


def test_samples_of_an_image_differ() -> None:
    """With one sample of each image twice the batch, and two samples: the same number of draws, all different."""
    model = model_of()
    rows = torch.arange(6).repeat_interleave(2)
    seen = []
    original = model.start

    def start(images: Tensor, noise: Noise) -> Any:
        seen.append((images, noise))
        return original(images, noise)

    model.start = start  # type: ignore[method-assign]
    training_step(model, images_of(), LABELS, phase_of(samples=2))
    images, noise = seen[0]
    assert (images == images_of()[rows]).all()
    assert len(set(noise.keys.tolist())) == 12


def test_gradual_learning_stops_at_the_levels_allowed() -> None:
    model = model_of()
    depth = []
    original = model.sense
    model.sense = lambda images, state, regions: depth.append(state.step + 1) or original(images, state, regions)  # type: ignore[method-assign]
    for levels in (1, 2, 3):
        depth.clear()
        terms = training_step(model, images_of(), LABELS, phase_of(levels=levels))
        assert max(depth) == levels
        assert set(terms) == ({"cross_entropy"} if levels == 1 else {"cross_entropy", "reinforce", "cost", "diversity"})


def test_multi_level_learning_is_the_weighted_sum_of_rules_5() -> None:
    """Eq. 6, on the same draws: runs of fewer levels are the first levels of the longest."""
    model, c_t, weights = model_of(), [2.0, 5.0], [0.5, 1.0, 2.0]
    together = training_step(model, images_of(), LABELS, phase_of(c_t=c_t, level_weights=weights))
    expected = dict.fromkeys(together, 0.0)
    for levels, weight in enumerate(weights, start=1):
        # A stage of one level takes one sample per image; its root is the same in all.
        alone = training_step(model, images_of(), LABELS, phase_of(levels=levels, c_t=c_t[levels - 2] if levels > 1 else 1))
        for name, value in alone.items():
            expected[name] += weight * value.item()
    assert {name: value.item() for name, value in together.items()} == pytest.approx(expected, rel=1e-4)


def test_targets_spread_evenly_unless_given() -> None:
    rule = LearningRule(c_t=(2.0, 12.0))
    assert rule.targets(2, 3) == (2.0, pytest.approx(2 / 9))
    assert rule.targets(3, 3) == (12.0, pytest.approx(3 / 9))  # 3 cells per node: 3 + 9 locations
    assert LearningRule(c_t=6, c_r=0.4).targets(3, 3) == (6.0, 0.4)


def test_mixed_precision_keeps_the_small_gradients_of_the_location_module() -> None:
    """At lambda_f = 1e-8 (ImageNet), in bfloat16: the same gradient as in float32, to the precision of the features."""
    gradients = []
    for enabled in (False, True):
        model = model_of()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            terms = training_step(model, images_of(), LABELS, phase_of(lambda_f=1e-8, lambda_t=1e-9, lambda_r=1e-9, samples=8, c_t=9))
        terms["cost"].backward()
        assert model.location.weight.grad is not None
        gradients.append(model.location.weight.grad)
    assert 0 < gradients[0].abs().max() < 1e-8
    assert torch.nn.functional.cosine_similarity(*(g.flatten() * 1e9 for g in gradients), dim=0) > 0.9


def test_a_model_set_to_its_mode_is_trained_by_draws() -> None:
    drawn, mode = (training_step(model_of(decide=how), images_of(), LABELS, phase_of()) for how in ("sample", "mode"))
    assert {k: v.item() for k, v in drawn.items()} == {k: v.item() for k, v in mode.items()}


@pytest.mark.parametrize("policy", ["random", "centre", "scan"])
def test_a_trivial_policy_trains_the_classifier_alone(policy: str) -> None:
    model = model_of(policy=policy)
    terms = training_step(model, images_of(), LABELS, phase_of())
    assert set(terms) == {"cross_entropy"}
    assert "location" not in reached(model, terms["cross_entropy"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda": 1}, "lambda"),
        ({"levels": 4}, "4 levels"),
        ({"level_weights": [1, 1]}, "3 levels"),
        ({"levels": 2, "level_weights": [1, 1, 1]}, "one weight per level, 2 in all"),
        ({"level_weights": [1, 1, 1], "c_t": 2}, "c_t for runs of 2 to 3 levels"),
        ({"c_t": -1}, "c_t above 0"),
        ({"c_t": [2, 6], "c_r": 0.2}, "as many numbers as c_t"),
        ({"samples": 0}, "samples"),
    ],
)
def test_options_that_are_no_rule(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GlimpseZooError, match=message) as caught:
        training_step(model_of(), images_of(), LABELS, phase_of(**options))
    assert "\n" not in str(caught.value)


def textures() -> Tensor:
    """One image for each of LABELS: flat, stripes across, stripes down and a chequerboard, with some noise."""
    odd = torch.arange(56) // 4 % 2
    kinds = [odd[:, None] * 0, odd[:, None], odd[None, :], odd[:, None] ^ odd[None, :]]
    clean = torch.stack([kinds[label].expand(56, 56).float() for label in LABELS])[:, None]
    return (clean + images_of()) / 2


def test_a_few_steps_lower_the_loss_and_steer_the_number_of_locations() -> None:
    model, images, memory = model_of(0.0), textures(), {}
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    history: list[dict[str, float]] = []
    for step in range(30):
        terms = training_step(model, images, LABELS, phase_of(memory, seed=step, levels=2, c_t=2))
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        history.append({name: value.item() for name, value in terms.items()})
    early, late = ({name: sum(h[name] for h in part) / 5 for name in ("cross_entropy", "cost")} for part in (history[:5], history[-5:]))
    assert late["cross_entropy"] < 0.5 * early["cross_entropy"]
    assert late["cost"] < 0.2 * early["cost"]  # at the paper's lambda_t = 1e-7, with Adam's epsilon of 1e-8


def test_the_sum_of_location_terms_is_steepest_where_the_rule_says() -> None:
    """`location_terms` of given choices: a positive advantage makes a cell more likely; too many attended cells make all less likely."""
    model = model_of()
    trace = rollout(model, images_of(), noise=phase_of().noise, record=EVERY)
    choices = choices_of(model, trace)
    rule = LearningRule(lambda_f=1.0, lambda_t=0.0, lambda_r=0.0)
    for sign in (1.0, -1.0):
        model.zero_grad()
        location_terms(rule, choices, torch.full((6,), sign), (2.0, 0.2), phase_of())["reinforce"].backward(retain_graph=True)
        cells = [decision.cells for _, decision in choices]
        surprise = sum((c.taken.float() - c.probability).sum(0) for c in cells) / 6
        torch.testing.assert_close(model.location.bias.grad, -sign * surprise, rtol=1e-4, atol=1e-5)  # d log p / d logit = u - p


def test_baselines_train_at_the_resolution_of_the_phase() -> None:
    model = Baseline1(BaselineConfig(), TASK)
    sizes = []
    model.features.register_forward_hook(lambda module, args, output: sizes.append(tuple(args[0].shape[2:])))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = baselines.training_step(model, images_of(), LABELS, phase_of(resolution=28))["cross_entropy"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    baselines.training_step(model, images_of(), LABELS, phase_of())
    assert (sizes[0], sizes[-1]) == ((28, 28), (56, 56))
    with pytest.raises(GlimpseZooError, match="resolutoin"):
        baselines.training_step(model, images_of(), LABELS, phase_of(resolutoin=28))
