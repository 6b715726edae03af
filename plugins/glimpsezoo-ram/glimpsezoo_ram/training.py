"""How RAM and DRAM learn: Mnih et al. (2014), section 3.1, equation 2; Ba et al. (2015), section 3.1, equations 9 to 13.

Both maximise a bound on log p(y | x) over the places l = l_1 ... l_T, estimated with M samples of every image. The loss is the mean over
the samples of
- cross_entropy: -log p(y | l, x) after the last glimpse;
- reinforce: -w sum_t log p(l_t | l_1 ... l_{t-1}, x) (R - b_t), where R is 1 if the prediction is right and 0 otherwise;
- baseline: (R - b_t)^2, averaged over t, where b_t is a linear function of what l_t was chosen from;
- entropy: -w_e sum_t H[p(l_t | ...)] (DRAM, whose policy chooses its deviation).

Places are drawn, so the cross-entropy does not train the policy. No gradient of the baseline passes into the model. In RAM, the gradient of
the REINFORCE term stops at h, so it trains only the locator; in DRAM it trains everything that the places depend on.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsezoo import TrainingPhase, monte_carlo, reinforce, returns, rollout
from glimpsezoo_ram.config import PolicyTraining
from glimpsezoo_ram.dram import DRAM
from glimpsezoo_ram.model import RAM
from glimpsezoo_ram.policy import Drawn

Terms = dict[str, Float[Tensor, ""]]


def training_step(model: RAM | DRAM, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase) -> Terms:
    """The terms of the loss as means over the batch. If no place is chosen by a learned policy, only the cross-entropy is left.

    Raises `GlimpseZooError` for invalid options of the training phase (`PolicyTraining`).
    """
    options = PolicyTraining.parse(phase.options, owner=f"training phase {phase.name!r}")
    samples = monte_carlo(images, labels, phase.noise, options.samples)
    trace = rollout(model, samples.images, noise=samples.noise)
    terms = {"cross_entropy": F.cross_entropy(trace.logits, samples.labels)}
    choices = [look.decision for look in trace.looks if isinstance(look.decision, Drawn)]
    if not choices:
        return terms
    right = (trace.logits.argmax(1) == samples.labels).to(trace.logits)
    rewards = F.pad(right[:, None], (len(choices) - 1, 0))  # [B M, places]: it comes with the last glimpse
    return terms | policy_terms(model.baseline, choices, returns(rewards), options)


def policy_terms(baseline: nn.Linear, choices: Sequence[Drawn], gains: Float[Tensor, "B places"], options: PolicyTraining) -> Terms:
    """The terms that train the policy and the baseline. gains: the return after each choice."""
    log_prob = torch.stack([choice.log_prob for choice in choices], 1)  # [B, places]
    evidence = torch.stack([choice.evidence[:, 0] for choice in choices], 1)  # [B, places, width]; one run per image in training
    expected = baseline(evidence.detach()).squeeze(2).to(gains)
    terms = {
        "reinforce": options.reinforce_weight * reinforce(log_prob, gains - expected),
        "baseline": F.mse_loss(expected, gains),
    }
    if options.entropy_weight:
        entropy = torch.stack([choice.entropy for choice in choices], 1).sum(1)
        terms["entropy"] = -options.entropy_weight * entropy.mean()
    return terms
