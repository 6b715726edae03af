"""Any timm model as a glimpse model that takes one look at the whole image.

Wightman, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models. There is no paper and so no paper cost.

sense is timm's `forward_features` (the trunk), classify its `forward_head` (pooling and classifier): together the model's own forward,
bit for bit, which is checked on one image when the model is built. Where that does not hold (features that are a list), sense is the
whole model and classify hands its logits on, so the sum over the phases is right in any case.

The input goes as timm trains it: resized inside the model, antialiased and by the interpolation of the model's data config, normalised
with that config's mean and standard deviation, not with the task's. Its crop is left out: the image is seen whole.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from glimpsezoo import Decision, GlimpseModel, GlimpseZooError, Noise, Regions, State, Task, TrainingPhase, rollout
from glimpsezoo_timm.backbone import create_backbone, is_trunk_and_head, published, unfit
from glimpsezoo_timm.config import TimmConfig
from glimpsezoo_timm.labels import imagenet_rows


@dataclass(frozen=True, kw_only=True)
class TimmState(State):
    """features: of the one look, as the trunk gives them ([B, C, h, w], [B, h, w, C] or [B, tokens, C]), or logits; None before it."""

    features: Float[Tensor, "B *rest"] | None = None


class TimmModel(GlimpseModel[TimmState]):
    """One look of a timm model at the whole image, resized to `size` (height, width) in pixels.

    Raises `GlimpseZooError` for an architecture that timm does not know, and for a size or an option that it cannot take.
    """

    steps = 1
    policy = "whole image"
    backbone: Any  # an nn.Module with timm's forward_features, forward_head and get_classifier
    mean: Tensor
    std: Tensor

    def __init__(self, config: TimmConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task = config, task
        self.size = _input_size(config, task)
        self.backbone = create_backbone(config, task.channels, self.size, len(task.classes))
        data = resolve_model_data_config(self.backbone)
        self.mode = "bilinear" if data["interpolation"] == "bilinear" else "bicubic"
        # Saved with the weights: another version of timm may give the architecture another normalisation.
        self.register_buffer("mean", _per_channel(data["mean"], task.channels))
        self.register_buffer("std", _per_channel(data["std"], task.channels))
        example = torch.linspace(-1, 1, task.channels * self.size[0] * self.size[1]).view(1, task.channels, *self.size)
        try:
            self.split = is_trunk_and_head(self.backbone, example)
        except Exception as error:  # see create_backbone: models that cannot take the size say so in many ways
            raise unfit(config, task.channels, self.size, error) from None

    @classmethod
    def pretrained(cls, config: TimmConfig, task: Task) -> Self:
        """With timm's published weights, their head cut to the classes of the task.

        Raises `GlimpseZooError` if there are none or they are out of reach, and if a class of the task is no class of the head.
        """
        rows = imagenet_rows(task.classes, published(config.architecture).num_classes)
        source = create_backbone(config, task.channels, _input_size(config, task), None, pretrained=True)
        model = cls(config, task)
        model.backbone.load_state_dict(cut_head(source, rows))
        return model

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[TimmState, Decision]:
        return TimmState(noise=noise), Decision.certain(Regions.whole_image(images))

    def sense(self, images: Float[Tensor, "B C H W"], state: TimmState, regions: Regions) -> Float[Tensor, "N *rest"]:
        if regions.centre.any() or (regions.scale != 1).any():
            raise GlimpseZooError(
                f"timm:{self.config.architecture} looks at the whole image, got a region that is a part of it: leave its decision alone"
            )
        x = self.prepared(images[regions.image])
        return self.backbone.forward_features(x) if self.split else self.backbone(x)

    def fuse(self, state: TimmState, decision: Decision, features: Float[Tensor, "B *rest"]) -> TimmState:
        return replace(state, features=features)

    def classify(self, state: TimmState) -> Float[Tensor, "B classes"]:
        assert state.features is not None, "classify comes after a look"
        return self.backbone.forward_head(state.features) if self.split else state.features

    def prepared(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Images in [0, 1] as the timm model takes them: of its size, normalised."""
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode=self.mode, antialias=True, align_corners=False)
            images = images.clamp(0, 1)  # bicubic weights overshoot at edges; image libraries clip too
        return (images - self.mean) / self.std


def _input_size(config: TimmConfig, task: Task) -> tuple[int, int]:
    return task.image_size if config.image_size is None else (config.image_size, config.image_size)


def _per_channel(values: tuple[float, ...], channels: int) -> Float[Tensor, "C 1 1"]:
    """As they are for as many channels as the model was published with; for grey or other images, their mean in every channel."""
    tensor = torch.tensor(values)
    return (tensor if len(values) == channels else tensor.mean().expand(channels)).view(channels, 1, 1).clone()


def cut_head(source: Any, rows: list[int]) -> dict[str, Tensor]:
    """The state dict of the timm model `source` with only `rows` of its head, in that order: what a model of so many classes loads.

    Raises `GlimpseZooError` if no linear or convolutional layer of its head has a row for every class.
    """
    names = head_layers(source)
    if not names:
        kind = type(source).__name__
        raise GlimpseZooError(f"expected a head with a row for each of {source.num_classes} classes, {kind} has none: train it instead")
    state = source.state_dict()
    for key in (f"{name}.{kind}" for name in names for kind in ("weight", "bias")):
        if key in state:  # some heads have no bias
            state[key] = state[key][rows]
    return state


def head_layers(source: Any) -> list[str]:
    """The names of the linear and convolutional layers of a timm model's head that have a row for every class."""
    heads = source.get_classifier()  # a module, or several that are averaged (distilled models)
    heads = [heads] if isinstance(heads, nn.Module) and not isinstance(heads, nn.ModuleList) else list(heads)
    layers = {module for head in heads for module in head.modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    return [name for name, module in source.named_modules() if module in layers and module.weight.shape[0] == source.num_classes]


def training_step(
    model: GlimpseModel[TimmState], images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase
) -> dict[str, Tensor]:
    """Cross-entropy in nats, the mean over the batch."""
    trace = rollout(model, images, noise=phase.noise)
    return {"cross_entropy": F.cross_entropy(trace.logits, labels)}
