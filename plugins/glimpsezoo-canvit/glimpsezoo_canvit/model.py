"""CanViT: a ViT that takes glimpses of any size and place, reads from a canvas of the whole scene, and writes to it.

Berreby, Du, Durand & Krishna, "CanViT: Toward Active-Vision Foundation Models", NeurIPS 2026, https://arxiv.org/abs/2603.22570. This is an
adapter around the authors' package, canvit-pytorch (MIT), which computes everything between the glimpse and the logits:

    x_t = the 128 x 128 px that sample the region t of the scene bilinearly                            sense
    tokens_t = [viewpoint, class_{t-1}, registers, patches of x_t], through the blocks of a ViT        fuse
    after every second block, in turn:  tokens += Read(tokens, canvas),  canvas += Write(canvas, tokens)
    canvas_t, class_t                   what is left for the next glimpse: the canvas, and the token of the class
    p_t = W LayerNorm(class_t) + b      (1)                                                            classify

Positions of patches and of cells are those in the scene, by which the attention rotates its queries and keys. CanViT has no policy of its
own: it takes what any policy shows it, the first glimpse included. That is why it `sees` nothing before its first look. A viewpoint of
the authors is the centre (row, column) in [-1, 1] and the scale of a square region, which are a region's centre with x and y exchanged,
and its scale.

Tensors have the authors' names, so that their weights fit as they are. Where this departs from their code:
- The scene is the image at the size of the data, which need not be square. The authors' is 512 x 512 px (`data.size`).
- Grey images are repeated to three channels.
- Random regions are drawn from the images' noise. Without a size from the policy (centre, scan, entropy, saliency, oracle), a region has
  half the side of the scene.
- The authors' policy "EG-C2F" reads the entropy of a segmentation, which a classifier does not have; `entropy` is another.
- With weights in float64, as in tests of gradients, everything but the angles of the rotations is computed in float64.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

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
    resample,
)
from glimpsezoo_canvit.config import CanViTConfig
from glimpsezoo_canvit.costs import paper_macs
from glimpsezoo_canvit.plugin import unavailable

SMALLEST = 0.05  # the scale of the smallest region that the authors' policies and their training choose


@dataclass(frozen=True, kw_only=True)
class CanViTState(State):
    """The state after t glimpses."""

    canvas: Float[Tensor, "B registers_and_cells width"]
    """The registers, then the cells row by row."""
    class_token: Float[Tensor, "B 1 units"]
    """The token that is classified."""


class CanViT(GlimpseModel[CanViTState]):
    """The authors' network, one glimpse per step, and their classifier.

    Raises `GlimpseZooError` without the authors' package, and for images that are neither grey nor RGB.
    """

    sees = "none"

    def __init__(self, config: CanViTConfig, task: Task) -> None:
        super().__init__()
        if why := unavailable():
            raise GlimpseZooError(why)
        from canvit_pytorch import CanViTForImageClassification  # pyright: ignore[reportMissingImports]

        if task.channels not in (1, 3):
            raise GlimpseZooError(f"canvit: expected images with 1 or 3 channels, got {task.channels}: choose other data")
        self.config, self.task = config, task
        self.steps, self.sizes = config.glimpses, (SMALLEST, 1.0)
        self.normalise = Normalise(task)
        theirs = CanViTForImageClassification(canvit_config=architecture(config), n_classes=len(task.classes))
        self.canvit, self.readout = theirs.canvit, theirs.readout
        self.follow(find_policy(config.policy))

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[CanViTState, Decision]:
        first = self.canvit.init_state(batch_size=len(images), canvas_grid_size=self.config.canvas)
        state = CanViTState(noise=noise, canvas=first.canvas, class_token=first.recurrent_cls)
        return state, Decision.certain(Regions.whole_image(images))

    def sense(self, images: Float[Tensor, "B C H W"], state: CanViTState, regions: Regions) -> Float[Tensor, "N 3 g g"]:
        """Glimpses. Pixels beyond the edge, of which those at the edge of a small region have a share, are the mean of the data."""
        with torch.autocast(images.device.type, enabled=False):
            scenes = self.normalise(images).expand(-1, 3, -1, -1)
            return resample(scenes, regions, (self.config.glimpse, self.config.glimpse))

    def fuse(self, state: CanViTState, decision: Decision, features: Float[Tensor, "B 3 g g"]) -> CanViTState:
        from canvit_pytorch import RecurrentState, Viewpoint  # pyright: ignore[reportMissingImports]

        regions = decision.regions
        if len(regions) != regions.batch:
            raise GlimpseZooError(f"CanViT looks at one region per image, got {len(regions)} for {regions.batch} images: give one each")
        viewpoint = Viewpoint(centers=regions.centre.flip(1).float(), scales=regions.scale.float())  # rows first
        before = RecurrentState(canvas=state.canvas, recurrent_cls=state.class_token)
        with _Double() if features.dtype is torch.float64 else nullcontext():
            after = self.canvit(glimpse=features, state=before, viewpoint=viewpoint).state
        return replace(state, canvas=after.canvas, class_token=after.recurrent_cls)

    def classify(self, state: CanViTState) -> Float[Tensor, "B classes"]:
        """Equation 1, in full precision also under mixed precision."""
        with torch.autocast(state.class_token.device.type, enabled=False):
            return self.readout(state.class_token[:, 0].to(self.readout.proj.weight))

    def look_at(
        self, state: CanViTState, place: Float[Tensor, "B 2"], scale: Float[Tensor, "B"] | None = None, made: Made = "given"
    ) -> Decision:
        """Without a scale, the region has half the side of the scene."""
        place = place.to(state.canvas)
        scale = place.new_full((len(place),), 0.5) if scale is None else scale.to(place)
        return Decision.certain(Regions.one_each((2 * place - 1) * (1 - scale[:, None]), scale), made)

    def random_look(self, state: CanViTState) -> Decision:
        """At any place, in any size (R-IID of section 6)."""
        return self.random_zoom(state)

    def paper_macs(self, step: int) -> PaperMacs:
        return PaperMacs("paper", paper_macs(self, step))


def architecture(config: CanViTConfig) -> Any:
    """The settings as the authors' package takes them, in its `CanViTConfig`."""
    from canvit_core.backbone import BACKBONES, ViTSpec  # pyright: ignore[reportMissingImports]
    from canvit_pytorch import CanViTConfig as Theirs  # pyright: ignore[reportMissingImports]

    BACKBONES.setdefault("tiny", ViTSpec(embed_dim=32, num_heads=2, num_blocks=2))
    return Theirs(
        backbone_name=config.backbone,
        canvas_num_heads=config.canvas_heads,
        canvas_head_dim=config.canvas_head_dim,
        num_canvas_registers=config.canvas_registers,
        num_backbone_registers=config.registers,
        rw_stride=config.stride,
        enable_reads=config.reads,
        enable_vpe=config.viewpoint,
        canvas_projections=config.projections,
    )


class _Double(TorchFunctionMode):
    """Lets the authors' network run with weights in float64: `Tensor.float` leaves float64 alone, and products take the wider type."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float and args[0].dtype is torch.float64:
            return args[0]
        if func is Tensor.matmul and args[0].dtype is not args[1].dtype:
            args = (args[0].double(), args[1].double())
        return func(*args, **(kwargs or {}))
