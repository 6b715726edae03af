"""What reward-trained models share: samples of an image differ only in their draws, and REINFORCE follows the true gradient."""

import pytest
import torch

from glimpsezoo import Noise, monte_carlo, reinforce, returns


def test_samples_stand_side_by_side_and_draw_for_themselves() -> None:
    images, labels, noise = torch.rand(3, 1, 2, 2), torch.tensor([4, 5, 6]), Noise.of(0, torch.tensor([7, 8, 9]))
    samples = monte_carlo(images, labels, noise, 2)
    assert torch.equal(samples.images[0::2], images)
    assert torch.equal(samples.images[1::2], images)
    assert samples.labels.tolist() == [4, 4, 5, 5, 6, 6]
    draws = samples.noise.uniform(1, 3)
    assert len(draws.unique()) == 18
    alone = monte_carlo(images[1:2], labels[1:2], noise.select(torch.tensor([1])), 2)
    assert torch.equal(alone.noise.uniform(1, 3), draws[2:4])  # whatever the batch


@pytest.mark.parametrize("discount", [1.0, 0.7])
def test_a_return_is_the_discounted_sum_of_what_follows(discount: float) -> None:
    rewards = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    for row, found in zip(rewards.tolist(), returns(rewards, discount).tolist(), strict=True):
        for t in range(5):
            assert found[t] == pytest.approx(sum(discount ** (s - t) * row[s] for s in range(t, 5)))


def test_its_expected_gradient_is_that_of_the_expected_return() -> None:
    """Two choices in a row out of three, enumerated; with any baseline, the mean gradient is the same."""
    scores = torch.tensor([[0.2, -0.5, 1.0], [0.7, 0.1, -0.3]], dtype=torch.double, requires_grad=True)
    value = torch.rand(3, 3, generator=torch.Generator().manual_seed(1)).double()
    log_prob = scores.log_softmax(1)
    expected = (log_prob[0].exp()[:, None] * log_prob[1].exp()[None] * value).sum()
    (wanted,) = torch.autograd.grad(-expected, scores, retain_graph=True)
    first, second = torch.cartesian_prod(torch.arange(3), torch.arange(3)).unbind(1)
    chosen = torch.stack([log_prob[0, first], log_prob[1, second]], 1)  # [9, 2]
    probability = chosen.sum(1).exp().detach()
    for baseline in (0.0, 0.4):
        gains = (value[first, second] - baseline)[:, None].expand(-1, 2).requires_grad_()
        found = torch.zeros_like(wanted)
        for n in range(9):
            (gradient,) = torch.autograd.grad(reinforce(chosen[n : n + 1], gains[n : n + 1]), scores, retain_graph=True)
            found += probability[n] * gradient
        torch.testing.assert_close(found, wanted)
    assert not torch.autograd.grad(reinforce(chosen, gains), gains, allow_unused=True)[0]
