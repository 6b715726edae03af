"""How RAM learns: Mnih et al. (2014), section 3.1, equation 2, with M samples of every image.

The loss is the mean over the samples of
- cross_entropy: -log p(y | l_1 ... l_T, x) after the last glimpse;
- reinforce: -w sum_t log N(l_t | mean, deviation) (R - b_t), where R is 1 if the prediction is right and 0 otherwise;
- baseline: (R - b_t)^2, averaged over t, where b_t is a linear function of h_{t-1}.

Places are drawn, so no gradient of the cross-entropy reaches the locator, and the gradients of the other two terms stop at h: they train
only the locator and the baseline.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo import Record, Trace, TrainingPhase, monte_carlo, reinforce, returns, rollout
from glimpsezoo_ram.config import RamTraining
from glimpsezoo_ram.model import RAM, RamState

Terms = dict[str, Float[Tensor, ""]]


def training_step(model: RAM, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase) -> Terms:
    """The terms of the loss as means over the batch. With a trivial policy or a single glimpse, only the cross-entropy is left.

    Raises `GlimpseZooError` for invalid options of the training phase (`RamTraining`).
    """
    options = RamTraining.parse(phase.options, owner=f"training phase {phase.name!r}")
    samples = monte_carlo(images, labels, phase.noise, options.samples)
    trace = rollout(model, samples.images, noise=samples.noise, record=Record(states=True))
    terms = {"cross_entropy": F.cross_entropy(trace.logits, samples.labels)}
    if model.policy != "learned" or model.steps == 1:
        return terms
    log_prob = torch.stack([look.decision.log_prob for look in trace.looks[1:]], 1)  # [B M, T - 1]
    right = (trace.logits.argmax(1) == samples.labels).to(log_prob)
    rewards = F.pad(right[:, None], (log_prob.shape[1] - 1, 0))  # the reward comes with the last glimpse
    gains, expected = returns(rewards), baselines(model, trace)
    return terms | {
        "reinforce": options.reinforce_weight * reinforce(log_prob, gains - expected),
        "baseline": F.mse_loss(expected, gains),
    }


def baselines(model: RAM, trace: Trace) -> Float[Tensor, "B T-1"]:
    """b_t for every place that was chosen, without a gradient in h."""
    hidden = []
    for look in trace.looks[:-1]:
        assert isinstance(look.state, RamState)
        hidden.append(look.state.hidden[:, 0].detach())  # one run per image in training
    return model.baseline(torch.stack(hidden, 1)).squeeze(2)
