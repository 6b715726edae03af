"""How the glimpse model learns: Ranzato (2014), section 2.2, equations 9 to 18.

Where to look is a latent variable z. Each training step first searches for z (E step), in a 3 x 3 grid N(l) around the predicted location
l, then takes one gradient step on the weights with z held fixed (M step). For glimpse k:

    L(z, y)  = E_k(X(z), y) + lambda/2 ||l - z||^2 + D(z)  [+ E_0(X_low, y) if k = 1]       (9, 17)
    D(z)     = gamma sum_{j<k} exp(-||z - l^{p_j}||^2 / (2 sigma^2))                        (18)
    z*       = argmin over z in N(l) of L(z, y*)                                            (11, 12)
    z-       = argmin over z in N(l) of min over y other than y* of L(z, y)                 (15)
    loss     = [E_0(X_low, y*) if k = 1] + E_k(X(z*), y*) + E_k(X(z-), y*)
               + lambda/2 ||l - z*||^2 + D(z*)                                              (13, 14, 16, 17)

E_0 and E_k are the cross-entropies in nats (10) after no glimpse and after k glimpses. Stages are greedy (2.2.1): a training phase of a
recipe names the glimpse that it trains, and changes only that glimpse's network and locator (in the first stage also N0).

The options of a training phase are `glimpse` (k; by default the last; 0 is E_0 alone, without a glimpse), `search` (default true; false
looks at the predicted place: fine-tuning, 2.2.2) and `copy` (default false; true starts with copies of the networks of glimpse k - 1).

What the paper leaves open, and what is done here:
- The grid is clamped to [0, 1] x [0, 1], because a sigmoid reaches nothing else.
- Equation 18 depends only on z, which the M step holds fixed: it steers the search, and its value in the loss has no gradient.
- Fine-tuning is the limit of infinite lambda, where z* and z- equal the prediction: one E_k at that place is left.
- Without a learned policy there is nothing to search: the loss is E_0 + E_k at the given place (table 3, "fixed at the center").
- If the earlier glimpses leave hardly any error on the training images, a second network with random weights gains less from a place than
  the location term (lambda/2 z^2) costs, and its location stays where it started. `copy` starts it where the previous glimpse looked.
- The paper trains N0 and N1 together from the start. `glimpse = 0` trains N0 alone first, at a third of the cost of a joint sweep.
- With shared weights (table 2) N1 cannot be held fixed while N2 is trained: the later stage trains the shared network in both its uses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo import Decision, GlimpseZooError, Record, State, TrainingPhase, rollout
from glimpsezoo_ranzato.model import GlimpseState, Ranzato


@dataclass(frozen=True, kw_only=True)
class Searched(Decision):
    """The decision to look at z*, with what the loss needs. Locations are in [0, 1]."""

    predicted: Float[Tensor, "B 2"]
    """l^{p_k}, with its gradient."""
    best: Float[Tensor, "B 2"]
    """z*, the place of the regions."""
    offending: Float[Tensor, "B 2"]
    """z-."""
    diversity: Float[Tensor, "B"]
    """Equation 18 at z*."""


def training_step(
    model: Ranzato, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase
) -> dict[str, Float[Tensor, ""]]:
    """The terms of the loss of one greedy stage, as means over the batch in nats (locations: squared units of [0, 1]).

    Raises `GlimpseZooError` for unknown options of the training phase.
    """
    glimpse, search, copy = stage_of(model, phase.options)
    if copy and phase.step == 0:
        start_as_copy(model, glimpse)
    searched = search and model.policy == "learned"

    def choose(images: Tensor, state: State, decision: Decision) -> Decision:
        """The glimpse in training looks at the best place around the prediction, the others at the predicted place."""
        if not searched or state.step != glimpse:
            return decision
        assert isinstance(state, GlimpseState)
        return search_around(model, images, labels, state, decision)

    trace = rollout(model, images, steps=glimpse + 1, choose=choose, noise=phase.noise, record=Record(every_step=True, states=True))
    if glimpse == 0:
        return {"low": F.cross_entropy(trace.logits, labels)}
    terms = {"glimpse": F.cross_entropy(trace.logits, labels)}
    if glimpse == 1:
        terms["low"] = F.cross_entropy(trace.logits_by_step()[:, 0], labels)
    before, decision = trace.looks[glimpse - 1].state, trace.looks[glimpse].decision
    if isinstance(before, GlimpseState) and isinstance(decision, Searched):
        terms |= _search_terms(model, images, labels, before, decision)
    return terms


def start_as_copy(model: Ranzato, glimpse: int) -> None:
    """Copy the locator and the network of glimpse k - 1 into those of k."""
    for networks in (model.locators, *([] if model.config.shared else [model.glimpses])):
        networks[glimpse - 1].load_state_dict(networks[glimpse - 2].state_dict())


def stage_of(model: Ranzato, options: Mapping[str, Any]) -> tuple[int, bool, bool]:
    """The glimpse k of a training phase (0: the low-resolution network alone), whether it searches, and whether it starts as a copy.

    Raises `GlimpseZooError`.
    """
    values = {"glimpse": model.config.glimpses, "search": True, "copy": False, **options}
    glimpse, search, copy = values.pop("glimpse"), values.pop("search"), values.pop("copy")
    if values:
        raise _invalid("the options glimpse, search and copy", repr(next(iter(values))))
    if type(glimpse) is not int or not 0 <= glimpse <= model.config.glimpses:
        raise _invalid(f"0 to {model.config.glimpses} as option glimpse", repr(glimpse))
    for name, value in {"search": search, "copy": copy}.items():
        if type(value) is not bool:
            raise _invalid(f"true or false as option {name}", repr(value))
    if copy and glimpse < 2:
        raise _invalid("glimpse 2 or later for the option copy", f"glimpse {glimpse}")
    return glimpse, search, copy


def _invalid(expected: str, got: str) -> GlimpseZooError:
    return GlimpseZooError(f"expected {expected} of a training phase, got {got}: correct the recipe")


def search_around(
    model: Ranzato, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], state: GlimpseState, decision: Decision
) -> Searched:
    """The E step (equations 12 and 15): the best and the most offending place in the grid around what `decision` predicts."""
    predicted = (decision.regions.centre + 1) / 2
    with torch.no_grad():
        places = grid_around(predicted, model)
        losses = losses_at(model, images, state, predicted, places)
        correct = F.one_hot(labels, losses.shape[2]).bool()[:, None]  # [B, 1, classes]
        best = _pick(places, losses.masked_fill(~correct, torch.inf))
        offending = _pick(places, losses.masked_fill(correct, torch.inf))
        diversity = crowding(model, best[:, None], state)[:, 0]
        chosen = model.decision_at(best, "searched", state)
    return Searched(
        regions=chosen.regions,
        made=chosen.made,
        log_prob=chosen.log_prob,
        entropy=chosen.entropy,
        predicted=predicted,
        best=best,
        offending=offending,
        diversity=diversity,
    )


def grid_around(location: Float[Tensor, "B 2"], model: Ranzato) -> Float[Tensor, "B 9 2"]:
    """N(l) of equation 12: 3 x 3 places `search_pixels` apart around locations in [0, 1]; the fifth is the location itself."""
    height, width = model.task.image_size
    offsets = torch.cartesian_prod(*[torch.arange(-1, 2, device=location.device)] * 2)  # [9, 2]
    spacing = model.config.search_pixels / location.new_tensor([width, height])
    return (location[:, None] + offsets * spacing).clamp(0, 1)


def losses_at(
    model: Ranzato, images: Float[Tensor, "B C H W"], state: GlimpseState, predicted: Float[Tensor, "B 2"], places: Float[Tensor, "B P 2"]
) -> Float[Tensor, "B P classes"]:
    """L(z, y) of the module's docstring for every place and every class, in nats."""
    distance = (predicted[:, None] - places).square().sum(2)  # [B, P]
    of_place = model.config.location_weight / 2 * distance + crowding(model, places, state)
    losses = of_place[:, :, None] - logits_at(model, images, state, places).log_softmax(2)
    if state.step == 1:
        losses = losses - state.low.log_softmax(1)[:, None]
    return losses


def logits_at(
    model: Ranzato, images: Float[Tensor, "B C H W"], state: GlimpseState, places: Float[Tensor, "B P 2"]
) -> Float[Tensor, "B P classes"]:
    """The logits after a next glimpse at each of `places`. The state is gathered with repeats, the images are not."""
    batch, count, _ = places.shape
    image = torch.arange(batch, device=places.device).repeat_interleave(count)  # [B * P]
    flat = places.flatten(0, 1)  # [B * P, 2]
    repeated = state.select(image)
    features = model.sense(images, state, model.regions_at(flat, image, state))
    after = model.fuse(repeated, model.decision_at(flat, "searched", repeated), features)
    return model.classify(replace(after, step=state.step + 1)).unflatten(0, (batch, count))


def crowding(model: Ranzato, places: Float[Tensor, "B P 2"], state: GlimpseState) -> Float[Tensor, "B P"]:
    """Equation 18: the penalty for places near the glimpses already taken."""
    distance = (places[:, :, None] - state.locations[:, None]).square().sum(3)  # [B, P, n]
    return model.config.diversity_weight * (-distance / (2 * model.config.diversity_variance)).exp().sum(2)


def _pick(places: Float[Tensor, "B P 2"], losses: Float[Tensor, "B P classes"]) -> Float[Tensor, "B 2"]:
    """The place with the smallest loss, per image."""
    index = losses.amin(2).argmin(1)  # [B]
    return places[torch.arange(len(places), device=places.device), index]


def _search_terms(
    model: Ranzato, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], before: GlimpseState, decision: Searched
) -> dict[str, Float[Tensor, ""]]:
    """The terms of equations 16 to 18 other than E_k(X(z*), y*). before: the state from which the location was predicted."""
    distance = (decision.predicted - decision.best).square().sum(1)
    terms = {"location": model.config.location_weight / 2 * distance.mean()}
    if model.config.contrast_weight:
        logits = logits_at(model, images, before, decision.offending[:, None])[:, 0]
        terms["offending"] = model.config.contrast_weight * F.cross_entropy(logits, labels)
    if model.config.diversity_weight and before.step > 1:
        terms["diversity"] = decision.diversity.mean()
    return terms
