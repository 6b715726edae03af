"""How AdaptiveNN learns: representation learning and self-rewarding reinforcement learning at once, end to end, as in the authors' code.

The gradient of the expected loss over drawn places has two parts: that of the loss at the places, and that of the places' probability,
for which the loss itself is the reward. With L_t the cross-entropy of the prediction after t fixations (0 is the glance), T fixations, V
the value net and S_t the state map:

    representation    sum_{t=0..T} L_t  +  distillation sum_{t<T} KL(p_T || p_t)  +  own_weight L_own
    reward            r_t = L_{t-1} - L_t: the decrease of the loss, in nats
    advantage         A_t = d_t + discount trace A_{t+1},  d_t = r_t + discount V(S_t) - V(S_{t-1}),  V(S_T) = 0 (GAE)
    policy            -mean of log pi(a_t) A_t, with A normalised over images and fixations
    value             mean of (V(S_{t-1}) - R_t)^2 with the target R_t = A_t + V(S_{t-1}) held fixed (A_t before normalisation)

GAE: Schulman et al. (2016), equation 16. p_T is the teacher, without gradient. L_own is the loss of the focus net by itself on the whole
image, resized to `own_side` px. Places are drawn around the policy's mean with a standard deviation that falls from `first_deviation` to
`last_deviation` along half a cosine. L_t of the representation has smoothed labels, that of the reward has not.

No gradient passes from the policy and the value into the map, or through a place into the policy, so the parts do not disturb each other.

The paper's own equations were not at hand: whether they have the same form is not known. What differs from the authors' code:
- They collect ten batches and take five steps of PPO on them, with the clipped ratio. Here, each batch is used once, at once, so the ratio
  is 1, its clipping would not act, and the gradient is that of REINFORCE. The bonus for entropy (.01) is left out, because the entropy of a
  fixed deviation has no gradient.
- They have mixed images (Mixup, CutMix) with soft labels in every loss, also in the reward. Here labels are hard.
- Their deviation is constant while the learning rate warms up.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from glimpsezoo import (
    Decision,
    GlimpseZooError,
    Record,
    Settings,
    State,
    Trace,
    TrainingPhase,
    reinforce,
    returns,
    rollout,
    standardised,
    thumbnail,
)
from glimpsezoo_adaptivenn.model import AdaptiveNN, AdaptiveNNState, Located

EPSILON = 1e-8  # in the normalisation of advantages

Terms = dict[str, Float[Tensor, ""]]


class PhaseOptions(Settings):
    """Options of a training phase of AdaptiveNN. The defaults are the authors'."""

    smoothing: float = Field(0.1, ge=0, lt=1)
    """The share of the label that is spread over all classes, in the loss of the representation."""
    distillation: float = Field(1.0, ge=0)
    """The weight of the divergence of each prediction from the last one."""
    own_weight: float = Field(2.0, ge=0)
    """The weight of the loss of the focus net by itself."""
    own_side: int = Field(160, ge=1)
    """The side in px of the images that it then sees. It must be a multiple of the model's `token`."""
    discount: float = Field(0.5, ge=0, le=1)
    """The discount of later rewards."""
    trace: float = Field(0.84, ge=0, le=1)
    """The decay of the trace in the advantage (lambda of GAE)."""
    first_deviation: float = Field(0.25, gt=0, le=1)
    """The standard deviation of drawn places at the start of the phase, as a share of the range of places."""
    last_deviation: float = Field(0.1, gt=0, le=1)
    """The same at its end."""

    def deviation(self, phase: TrainingPhase) -> float:
        """The standard deviation in this step of the phase."""
        falling = (1 + math.cos(math.pi * phase.step / phase.steps)) / 2
        return self.last_deviation + (self.first_deviation - self.last_deviation) * falling


def training_step(model: AdaptiveNN, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase) -> Terms:
    """The terms of the loss as means over the batch, in nats (value: squared nats). Under another policy, the representation learns alone.

    The options of the training phase are `PhaseOptions`. Raises `GlimpseZooError` for others, and if tokens do not tile `own_side`.
    """
    options = PhaseOptions.parse(phase.options, owner=f"training phase {phase.name!r}")
    if options.own_weight and options.own_side % model.config.token:
        raise GlimpseZooError(
            f"training phase {phase.name!r}: expected own_side to be a multiple of token={model.config.token}, got {options.own_side}: "
            "set another"
        )

    def choose(batch: Tensor, state: State, decision: Decision) -> Decision:
        if isinstance(decision, Located):
            return model.drawn(decision, cast(AdaptiveNNState, state), options.deviation(phase))
        return decision

    trace = rollout(model, images, choose=choose, noise=phase.noise, record=Record(every_step=True, states=True))
    terms = representation_terms(trace, labels, options)
    if options.own_weight:
        whole = thumbnail(model.normalise(images), (options.own_side, options.own_side), "bicubic")
        terms["own"] = options.own_weight * F.cross_entropy(
            model.focus_classifier(model.focus(whole)), labels, label_smoothing=options.smoothing
        )
    choices = [look.decision for look in trace.looks if isinstance(look.decision, Located)]
    return terms | (policy_terms(model, trace, choices, labels, options, phase) if choices else {})


def representation_terms(trace: Trace, labels: Int[Tensor, "B"], options: PhaseOptions) -> Terms:
    """The loss of every prediction, and its divergence from the last one. trace: with the logits of every step."""
    every = trace.logits_by_step().unbind(1)
    terms = {"classification": torch.stack([F.cross_entropy(each, labels, label_smoothing=options.smoothing) for each in every]).sum()}
    if options.distillation:
        teacher = every[-1].detach().softmax(1)
        divergences = [F.kl_div(each.log_softmax(1), teacher, reduction="batchmean") for each in every[:-1]]
        terms["distillation"] = options.distillation * torch.stack(divergences).sum()
    return terms


def policy_terms(
    model: AdaptiveNN, trace: Trace, choices: Sequence[Located], labels: Int[Tensor, "B"], options: PhaseOptions, phase: TrainingPhase
) -> Terms:
    """The terms that train policy and value net. trace: with the logits and states of every step; choices: of each fixation."""
    maps = [cast(AdaptiveNNState, look.state).map.detach() for look in trace.looks[:-1]]  # from which each place was chosen
    values = torch.cat([model.value(map, index) for index, map in enumerate(maps)], 1)  # [B, T]
    with torch.no_grad():
        looks = trace.logits_by_step()  # [B, T + 1, classes]
        loss = F.cross_entropy(looks.transpose(1, 2), labels[:, None].expand(looks.shape[:2]), reduction="none")  # [B, T + 1]
        rewards = loss[:, :-1] - loss[:, 1:]  # [B, T]
        following = F.pad(values[:, 1:], (0, 1))
        advantage = returns(rewards + options.discount * following - values, options.discount * options.trace)
        target = advantage + values
        advantage = standardised(advantage, phase, EPSILON)
    log_prob = torch.stack([choice.log_prob for choice in choices], 1)  # [B, T]
    return {"policy": reinforce(log_prob, advantage) / len(choices), "value": (values - target).square().mean()}
