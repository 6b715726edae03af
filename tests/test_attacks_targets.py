"""Attacks with other aims (where a model looks, an early and wrong exit) and budgets (few pixels, a visible square), and chance."""

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from models_to_attack import Net, accuracy, attack_of, attacked, trained_net
from torch import Tensor
from toy_models import Peek, Tree, batch_of_images, toy

from glimpsezoo.conditions.attacks.base import attacker_noise
from glimpsezoo.conditions.attacks.early_wrong import early_error
from glimpsezoo.conditions.attacks.looks import kept, mean_centres, most_kept, moved
from glimpsezoo.conditions.attacks.patch import aware_corners, covered
from glimpsezoo.conditions.attacks.sparse import _exchanged
from glimpsezoo.conditions.attacks.victim import Victim, margin
from glimpsezoo.core.exits import Confidence
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.regions import Decision
from glimpsezoo.core.rollout import Record, Trace, rollout
from glimpsezoo.errors import GlimpseZooError


class HardPeek(Peek):
    """Its places have no gradient."""

    def locate(self, state: Any) -> Decision:
        return super().locate(state).detached()


@cache
def wanderer(kind: Any = Peek) -> tuple[Any, Tensor, Tensor]:
    """A model that looks all over the image, images, and what it predicts for them."""
    model, images = toy(kind, steps=4), batch_of_images(16)
    with torch.no_grad():
        model.where.weight.mul_(6)
    return model, images, run(model, images).logits.argmax(1)


def run(model: Any, images: Tensor, **options: Any) -> Trace:
    with torch.no_grad():
        return rollout(model, images, record=Record(every_step=True), **options)


def alike_in_any_batch(name: str, model: Any, images: Tensor, labels: Tensor, **settings: Any) -> bool:
    """Whether an image is attacked the same in a batch of others."""
    rows, attack = torch.tensor([7, 2, 11]), attack_of(name, **settings)
    whole = attacked(attack, model, images, labels)
    return torch.allclose(attacked(attack, model, images[rows], labels[rows], rows), whole[rows], atol=1e-5)


@pytest.mark.parametrize("draws", ["corners", "uniform", "gaussian", "mixed"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_random_changes_stay_within_the_budget_and_use_it(norm: str, draws: str) -> None:
    model, images, labels = trained_net()
    eps = 0.1 if norm == "Linf" else 0.8
    changed = attacked(attack_of("random", norm=norm, eps=eps, draws=draws), model, images, labels) - images
    size = changed.abs().flatten(1).amax(1) if norm == "Linf" else changed.flatten(1).norm(dim=1)
    assert (size <= eps + 1e-5).all()
    assert (size > 0.7 * eps).any()


def test_chance_is_weaker_than_an_attack_and_worse_with_every_draw() -> None:
    model, images, labels = trained_net()
    once, often = (accuracy(model, attacked(attack_of("random", eps=0.3, steps=n), model, images, labels), labels) for n in (1, 30))
    assert accuracy(model, attacked(attack_of("pgd", eps=0.3), model, images, labels), labels) < often < once
    assert alike_in_any_batch("random", model, images, labels, eps=0.1)


def test_early_wrong_makes_exits_wrong_and_no_later() -> None:
    model, images, labels = wanderer()
    confidence = run(model, images).logits_by_step().softmax(2).amax(2)
    rule = Confidence(confidence[:, :3].amax(1).median().item())
    changed = attacked(attack_of("early-wrong", rule, eps=0.3, steps=10), model, images, labels)
    before, after = (run(model, each, exit_rule=rule) for each in (images, changed))
    wrong_before, wrong = (trace.logits.argmax(1) != labels for trace in (before, after))
    assert wrong.sum() > wrong_before.sum()
    plain = attacked(attack_of("pgd", rule, eps=0.3, target="exit"), model, images, labels)
    same = wrong & (run(model, plain, exit_rule=rule).logits.argmax(1) != labels)
    assert same.any()
    assert after.last_step[same].sum() <= run(model, plain, exit_rule=rule).last_step[same].sum()


@pytest.mark.parametrize("kind", [Peek, Tree])
def test_what_early_wrong_wants_is_an_error_where_the_driver_stops(kind: Any) -> None:
    model, images = toy(kind, steps=4), batch_of_images(12)
    labels = torch.arange(12) % 3
    victim = Victim(model, images, labels, Noise.of(1, torch.arange(12)))
    rule = Confidence(run(model, images).logits_by_step().softmax(2).amax(2)[:, :3].median().item())
    _, success = early_error(rule)(victim, images, 0)
    trace = run(model, images, noise=victim.noise.fork(0), exit_rule=rule)
    wrong = trace.logits.argmax(1) != labels
    assert wrong.any()
    assert not wrong.all()
    assert success.tolist() == torch.where(wrong, 5 - trace.last_step, 0).tolist()


def test_moved_and_kept_are_told_by_the_places_of_the_glimpses() -> None:
    model, images, _ = wanderer()
    clean, other = run(model, images), run(model, images.flip(3))
    one, two = (torch.stack([look.decision.regions.centre for look in trace.looks[1:]], 1) for trace in (clean, other))  # [B, T - 1, 2]
    torch.testing.assert_close(moved(other, clean), ((two - one) / 2).norm(dim=2).mean(1))
    assert (moved(clean, clean) == 0).all()
    for name, corner in {"top-left": (-1.0, -1.0), "bottom-right": (1.0, 1.0)}.items():
        expected = ((one < 0) if name == "top-left" else (one > 0)).all(2).float().mean(1)
        torch.testing.assert_close(kept(clean, corner), expected)
    assert (most_kept(clean) >= kept(clean, (1.0, 1.0))).all()


def test_places_of_several_glimpses_are_their_mean_and_none_where_an_image_is_finished() -> None:
    model, images = toy(Tree, steps=4), batch_of_images(12)
    trace = run(model, images, noise=Noise.of(0, torch.arange(12)))
    centre, seen = mean_centres(trace)
    assert torch.equal(seen, trace.regions_by_step() > 0)
    assert not seen.all()
    look = trace.looks[1]
    regions = look.decision.regions
    image = int(regions.counts().argmax())
    several = regions.centre[regions.image == image]
    assert len(several) > 1
    torch.testing.assert_close(centre[look.rows[image], 1], several.mean(0))


@pytest.mark.parametrize("kind", [Peek, HardPeek])
def test_distract_moves_glimpses_further_than_chance(kind: Any) -> None:
    model, images, labels = wanderer(kind)
    clean = run(model, images)
    chance, aimed = (run(model, attacked(attack_of(n, eps=0.05), model, images, labels)) for n in ("random", "distract"))
    assert moved(aimed, clean).mean() > moved(chance, clean).mean()
    assert alike_in_any_batch("distract", copied(model), images.double(), labels, eps=0.05, steps=3)


def copied(model: Any) -> Any:
    """In double precision, because steps depend on steps."""
    again = type(model)(model.steps)
    again.load_state_dict(model.state_dict())
    return again.double().eval()


def test_tunnel_keeps_glimpses_in_a_quarter() -> None:
    model, images, labels = wanderer()
    before = run(model, images)
    any_quarter = run(model, attacked(attack_of("tunnel", eps=0.1), model, images, labels))
    assert most_kept(any_quarter).mean() > most_kept(before).mean()
    assert (most_kept(any_quarter) >= most_kept(before)).all()
    one = run(model, attacked(attack_of("tunnel", eps=0.1, quarter="top-right"), model, images, labels))
    assert kept(one, (1, -1)).mean() > kept(before, (1, -1)).mean()


@pytest.mark.parametrize("name", ["distract", "tunnel", "patch-aware"])
def test_attacks_on_the_looks_need_a_model_that_chooses_them(name: str) -> None:
    with pytest.raises(GlimpseZooError, match=f"{name}: .*single step: leave this attack out"):
        attack_of(name).check(Net())
    scan = toy(Peek, steps=3)
    scan.policy = "scan"
    with pytest.raises(GlimpseZooError, match=f"{name}: .*'scan': leave this attack out"):
        attack_of(name).check(scan)


def test_early_wrong_needs_steps_and_a_sparse_budget_pixels_to_spare() -> None:
    with pytest.raises(GlimpseZooError, match=r"early-wrong: .*single step"):
        attack_of("early-wrong", Confidence(0.9)).check(Net())
    with pytest.raises(GlimpseZooError, match=r"at most 32 pixels.*got 33"):
        attack_of("sparse", eps=33).check(Net())


def test_sparse_changes_few_pixels_and_breaks_more_with_more() -> None:
    model, images, labels = trained_net()
    right = []
    for eps in (1, 3, 12):
        changed = attacked(attack_of("sparse", eps=eps, steps=60), model, images, labels)
        touched = (changed != images).any(1)
        assert (touched.sum((1, 2)) <= eps).all()
        assert set(changed.movedim(1, 3)[touched].flatten().tolist()) <= {0.0, 1.0}
        right.append(accuracy(model, changed, labels))
    assert right[0] > right[1] > right[2]
    chance = accuracy(model, attacked(attack_of("sparse", eps=3, steps=1), model, images, labels), labels)
    assert chance > right[1]
    assert alike_in_any_batch("sparse", model, images, labels, eps=3, steps=10)


def test_sparse_never_goes_back() -> None:
    """With every query, the margin falls or stays; one pixel breaks hardly any of these images, so the search goes on."""
    model, images, labels = trained_net()
    margins = []
    for steps in (1, 4, 16, 64):
        changed = attacked(attack_of("sparse", eps=1, steps=steps), model, images, labels)
        margins.append(margin(run(model, changed).logits, labels))
    assert all((after <= before).all() for before, after in pairwise(margins))
    assert (margins[-1] < margins[0]).any()


def test_sparse_exchanges_pixels_for_others() -> None:
    pixels, colours = torch.tensor([[0, 3, 5], [1, 2, 7]]), torch.zeros(2, 3, 1)
    for query in range(1, 30):
        found, _ = _exchanged(pixels, colours, Noise.of(0, torch.arange(2)), query, 2, 8)
        assert all(len(row.unique()) == 3 for row in found)
        assert ((found == pixels).sum(1) == 1).all()


@pytest.mark.parametrize("name", ["patch", "patch-aware"])
def test_a_patch_is_one_square(name: str) -> None:
    model, images, labels = wanderer()
    changed = attacked(attack_of(name, eps=0.1, steps=4), model, images, labels)
    touched = (changed != images).any(1)  # [B, H, W]
    assert touched.any()
    for mask in touched[touched.any((1, 2))]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        assert rows.max() - rows.min() < 5  # 10 % of 16 x 16 pixels are 5 x 5
        assert columns.max() - columns.min() < 5
    assert ((changed >= 0) & (changed <= 1)).all()
    assert accuracy(model, changed, labels) < 1
    assert alike_in_any_batch(name, copied(model), images.double(), labels, steps=2)


def test_patches_of_one_who_knows_the_policy_lie_on_the_glimpses_and_far_from_them() -> None:
    model, images, labels = wanderer()
    victim = Victim(model, images, labels, attacker_noise(0, torch.arange(len(images)))[1])
    corners = aware_corners(victim, 5, 4)  # three steps after the first, and the furthest place
    centres, _ = mean_centres(run(model, images))
    for step in range(3):
        pixel = ((centres[:, step + 1].flip(1) + 1) / 2 * 16).long().clamp(0, 15)  # [B, 2], as (row, column)
        mask = covered(corners[:, step], 5, 16, 16).squeeze(1)
        assert mask[torch.arange(len(images)), pixel[:, 0], pixel[:, 1]].all()
    middle = 2 * (corners[:, 3] + 2.5) / 16 - 1
    away = (middle[:, None].flip(2) - centres[:, 1:]).norm(dim=2).amin(1)
    grid = torch.cartesian_prod(torch.arange(12), torch.arange(12)) / 8 + 5 / 16 - 1  # every middle, as (y, x)
    best = (grid[None, :, None].flip(3) - centres[:, None, 1:]).norm(dim=3).amin(2).amax(1)
    torch.testing.assert_close(away, best)
