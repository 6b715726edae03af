"""How GFNet learns: the three stages of Wang et al. (2020), section 3.3 and appendix A.

    stage 1     L = 1/T sum_t [CE(p_t, y) + lambda CE(q_t, y)] at uniformly random places; q_t is the encoder's own classifier (own_loss)
    stage 2     the policy alone, by PPO (Schulman et al., 2017): the reward of place l_t is the gain p_ty - p_{t-1,y} in the probability
                of the right class, the return sums rewards with a discount of .7
    stage 3     the loss of stage 1, at places that the policy draws; the policy is fixed

A training phase of a recipe names its stage as an option, and by `trainable` what it trains: in stage 2 `locator.*`, in the others all
else. Encoders that are not trained keep their batch statistics.

PPO, with R_t the returns of a batch, normalised over its images and steps, and V the value of a state by the critic:

    A_t = R_t - V_t,   ratio = pi(l_t) / pi_old(l_t)
    loss = mean of -min(ratio A_t, clip(ratio, .8, 1.2) A_t) + 1/2 (V_t - R_t)^2

As in the authors' code, each batch is used once, right after it was drawn, so the ratio is 1 and its clipping does not act; the bonus for
entropy is left out, because the entropy of a fixed standard deviation has no gradient.
"""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from glimpsezoo import Decision, GlimpseZooError, Record, Settings, State, Trace, TrainingPhase, returns, rollout, standardised
from glimpsezoo_gfnet.model import GFNet, GFNetState, Located

CLIP = 0.2  # how far PPO's ratio may be from 1
EPSILON = 1e-5  # in the normalisation of returns


class PhaseOptions(Settings):
    """Options of a training phase of GFNet."""

    stage: Literal[1, 2, 3]
    """The stage of the paper's training."""
    discount: float = Field(0.7, ge=0, le=1)
    """Stage 2: the discount of rewards."""


def training_step(
    model: GFNet, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase
) -> dict[str, Float[Tensor, ""]]:
    """The terms of the loss of a stage, as means over the batch, in nats (value: squared units of a normalised return).

    The options of the training phase are `PhaseOptions`. Raises `GlimpseZooError` for other options, and for stages 2 and 3 without a
    learned policy.
    """
    options = PhaseOptions.parse(phase.options, owner=f"training phase {phase.name!r}")
    if options.stage > 1 and (model.policy != "learned" or model.steps == 1):
        got = f"{model.steps} look" if model.steps == 1 else f"policy={model.policy}"
        raise GlimpseZooError(
            f"stage {options.stage} expects a model with a learned policy and two looks or more, got {got}: train stage 1 alone"
        )

    def choose(batch: Tensor, state: State, decision: Decision) -> Decision:
        assert isinstance(state, GFNetState)
        if state.step == 0:
            return decision
        if options.stage == 1:
            return model.random_look(state)
        return decision if decision.made == "sampled" else model.drawn(cast(Located, decision), state)

    trace = rollout(model, images, choose=choose, noise=phase.noise, record=Record(every_step=True, states=True))
    if options.stage == 2:
        return policy_loss(model, trace, labels, options.discount, phase)
    return classification_loss(model, trace, labels)


def classification_loss(model: GFNet, trace: Trace, labels: Int[Tensor, "B"]) -> dict[str, Float[Tensor, ""]]:
    """The loss of stages 1 and 3, over the steps of a rollout with logits and states."""
    losses, own = [], []
    for step, look in enumerate(trace.looks, 1):
        encoder = model.glance if step == 1 else model.focus
        vector = cast(GFNetState, look.state).features[:, -encoder.width :]  # the newest, with either classifier
        losses.append(F.cross_entropy(cast(Tensor, look.logits), labels))
        own.append(F.cross_entropy(encoder.head(vector), labels))
    terms = {"classification": torch.stack(losses).mean()}
    if model.config.own_loss:
        terms["own"] = model.config.own_loss * torch.stack(own).mean()
    return terms


def policy_loss(
    model: GFNet, trace: Trace, labels: Int[Tensor, "B"], discount: float, phase: TrainingPhase
) -> dict[str, Float[Tensor, ""]]:
    """The loss of stage 2, over the drawn places of a rollout with logits."""
    decisions = [cast(Located, look.decision) for look in trace.looks[1:]]
    with torch.no_grad():
        right = trace.logits_by_step().softmax(2)[torch.arange(len(labels)), :, labels]  # [B, T] probability of the right class
        target = returns(right.diff(dim=1), discount)  # [B, T - 1]
        target = standardised(target, phase, EPSILON)
    log_prob = torch.stack([decision.log_prob for decision in decisions], 1)  # [B, T - 1]
    value = torch.stack([model.locator.critic(decision.memory)[:, 0] for decision in decisions], 1)
    advantage = target - value.detach()
    ratio = (log_prob - log_prob.detach()).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    return {"policy": -gain.mean(), "value": 0.5 * (value - target).square().mean()}
