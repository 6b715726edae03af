"""Ranzato, "On Learning Where To Look" (2014): first the down-sampled image, at low cost, then glimpses at learned places.

Step 1 is the low-resolution network N0 on the down-sampled image; step n + 1 adds the paper's n-th glimpse.

    N0          h^L = max(0, W_1^L X_low + b_1^L),  o^L = W_2^L h^L + b_2^L                     (1)
    classes     y = softmax(o^L + 1/n sum_{j<=n} o^{H_j}); softmax(o^L) before any glimpse     (2, 5, 6)
    location n  l^{p_n} = sigmoid(W_1^{p_n} h^L + W_2^{p_n} (o^L + sum_{j<n} o^{H_j}) + b^{p_n})  (3, 8)
    glimpse n   h^{H_n} = max(0, W_1^{H_n} X(l^{p_n}) + b_1^{H_n}),  o^{H_n} = W_2^{H_n} h^{H_n} + b_2^{H_n}  (4, 7)

Locations are (x, y) in [0, 1] x [0, 1] of the image. A patch is cropped at whole pixels, with its corner rounded to the nearest pixel.
A region holds the location itself, so it is exact to half a pixel. Patches of several scales have the same centre; the region's scale is
that of the widest patch. Down-sampling averages areas.

Where this departs from the paper, or decides what the paper leaves open:
- Equation 8's sum, as printed, includes the glimpse whose location it predicts, which is circular. Here it includes the glimpses taken.
- Pixels outside the image are 0, as around the digits of jittered MNIST. Pixels are normalised by the task's mean and standard
  deviation after cropping. The paper specifies neither.
- If the sides do not divide (28 px to 10 px), averages are over overlapping bins of whole pixels (torch's adaptive pooling).
- With `parallel`, every location depends only on (h^L, o^L), so all glimpses could run at once. They still run one by one: the cost is
  the same, and any of them can be the last.
- Policies other than the learned one choose places where the finest patch lies inside the image.
- Attacks differentiate a crop as if it were bilinear instead of at whole pixels (in eval mode with gradients on; the crop is the same).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsezoo import (
    Decision,
    GlimpseModel,
    GlimpseZooError,
    Made,
    Noise,
    Normalise,
    PaperMacs,
    Regions,
    State,
    Task,
    find_policy,
    retina,
    thumbnail,
)
from glimpsezoo_ranzato.config import RanzatoConfig


class Features(NamedTuple):
    """What one network computes."""

    hidden: Float[Tensor, "N hidden"]
    """h of equations 1, 4 and 7."""
    logits: Float[Tensor, "N classes"]
    """o of equations 1, 4 and 7."""


@dataclass(frozen=True, kw_only=True)
class GlimpseState(State):
    """The state after n glimpses."""

    hidden: Float[Tensor, "B hidden"]
    """h^L of N0."""
    low: Float[Tensor, "B classes"]
    """o^L of N0."""
    glimpsed: Float[Tensor, "B classes"]
    """The sum of o^{H_j} over the glimpses."""
    locations: Float[Tensor, "B n 2"]
    """The locations of the glimpses, in [0, 1]."""


class OneHidden(nn.Module):
    """A network with one hidden layer of rectified units (equations 1, 4 and 7)."""

    macs: int
    """Per input, as the paper counts."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, classes)
        self.macs = inputs * hidden + hidden * classes

    def forward(self, x: Float[Tensor, "N inputs"]) -> Features:
        hidden = self.first(x).relu()
        return Features(hidden, self.second(hidden))


class Ranzato(GlimpseModel[GlimpseState]):
    """The glimpse model of equations 1 to 8. The first step sees the down-sampled image, so steps = glimpses + 1.

    Raises `GlimpseZooError` if the images are smaller than the low-resolution image or a patch.
    """

    sees = "lowres"
    padding = "zeros"

    def __init__(self, config: RanzatoConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task = config, task
        self.steps = config.glimpses + 1
        self.surrogate = "straight-through bilinear crop at the predicted location"
        height, width = task.image_size
        for key, side in (("low_size", config.low_size), ("patch", config.patch)):
            if side > min(height, width):
                raise GlimpseZooError(f"ranzato: expected {key} to fit into images of {height} x {width} px, got {side}: set it smaller")
        classes = len(task.classes)
        views = task.channels * config.patch**2 * config.scales  # pixels that a glimpse network takes
        networks = [OneHidden(views, config.hidden, classes) for _ in range(1 if config.shared else config.glimpses)]
        self.pixels = nn.Sequential(Normalise(task), nn.Flatten())  # [N, *, C, h, w] -> [N, inputs]
        self.low = OneHidden(task.channels * config.low_size**2, config.hidden, classes)
        self.glimpses = nn.ModuleList(networks)
        # [W_1^p W_2^p] side by side, for [h^L; logits so far]
        self.locators = nn.ModuleList(nn.Linear(config.hidden + classes, 2) for _ in range(config.glimpses))
        self._scale, self._ratio = (config.patch << (config.scales - 1)) / width, width / height
        self._macs_of_glimpse = networks[0].macs
        self.follow(find_policy(config.policy))

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[GlimpseState, Decision]:
        batch, classes = len(images), len(self.task.classes)
        state = GlimpseState(
            noise=noise,
            hidden=images.new_zeros(batch, self.config.hidden),
            low=images.new_zeros(batch, classes),
            glimpsed=images.new_zeros(batch, classes),
            locations=images.new_zeros(batch, 0, 2),
        )
        return state, Decision.certain(Regions.whole_image(images))

    def sense(self, images: Float[Tensor, "B C H W"], state: GlimpseState, regions: Regions) -> Features:
        if state.step == 0:
            side = self.config.low_size
            return self.low(self.pixels(regions.images_of(thumbnail(images, (side, side), "pixels"))))
        soft = torch.is_grad_enabled() and not self.training and self.surrogate is not None
        views = retina(images, regions, self.config.patch, self.config.scales, soft=soft)
        return self.glimpses[0 if self.config.shared else state.step - 1](self.pixels(views))

    def fuse(self, state: GlimpseState, decision: Decision, features: Features) -> GlimpseState:
        if state.step == 0:
            return replace(state, hidden=features.hidden, low=features.logits)
        location = (decision.regions.centre + 1) / 2
        locations = torch.cat([state.locations, location[:, None]], 1)  # [B, n, 2]
        return replace(state, glimpsed=state.glimpsed + features.logits, locations=locations)

    def classify(self, state: GlimpseState) -> Float[Tensor, "B classes"]:
        """Equations 2, 5 and 6, without their softmax."""
        taken = state.step - 1
        return state.low + state.glimpsed / max(taken, 1)

    def locate(self, state: GlimpseState) -> Decision:
        logits = state.low if self.config.parallel else state.low + state.glimpsed
        evidence = torch.cat([state.hidden, logits], 1)  # [B, hidden + classes]
        location = self.locators[state.step - 1](evidence).to(state.glimpsed.dtype).sigmoid()  # half precision is too coarse for places
        return self.decision_at(location, "regressed", state)

    def decision_at(self, location: Float[Tensor, "B 2"], made: Made, state: GlimpseState) -> Decision:
        """The decision to take the next glimpse at `location`, (x, y) in [0, 1]."""
        return Decision.certain(Regions.one_each(2 * location - 1, self._scale, level=state.step, ratio=self._ratio), made)

    def regions_at(self, location: Float[Tensor, "N 2"], image: Int[Tensor, "N"], state: GlimpseState) -> Regions:
        """Regions of the next glimpse network at `location` [N, 2] in [0, 1], of the images `image` [N] of a batch in this state."""
        whole = torch.ones_like(image)
        return Regions(
            image=image,
            centre=2 * location - 1,
            scale=location.new_full((len(image),), self._scale),
            level=whole * state.step,
            parent=-whole,
            batch=len(state.low),
            ratio=self._ratio,
        )

    def look_at(
        self, state: GlimpseState, place: Float[Tensor, "B 2"], scale: Float[Tensor, "B"] | None = None, made: Made = "given"
    ) -> Decision:
        """The decision to take the next glimpse where the finest patch lies inside the image. All glimpses have one scale."""
        place, (height, width) = place.to(state.glimpsed), self.task.image_size
        margin = self.config.patch / 2 / place.new_tensor([width, height])
        return self.decision_at(margin + (1 - 2 * margin) * place, made, state)

    def paper_macs(self, step: int) -> PaperMacs:
        """Section 4.1: linear layers without biases. Crops and resizing cost nothing, and the last step predicts no location."""
        locator = 2 * (self.config.hidden + len(self.task.classes)) if self.follows.reads_own else 0
        return PaperMacs("paper", self.low.macs + (step - 1) * (self._macs_of_glimpse + locator))
