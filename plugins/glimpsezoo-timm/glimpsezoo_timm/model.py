"""Any timm model as a feed-forward model: one look at the whole image.

Wightman, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models. There is no paper, so there is no paper cost.

`features` is timm's `forward_features` (the trunk) and `head` its `forward_head` (pooling and classifier). Together they equal the
model's own forward bit for bit, which is checked on one image when the model is built. If they do not (features that are a list),
`features` is the whole model and `head` returns its logits, so the total cost is right in either case.

Images are prepared as timm trains: resized inside the model, antialiased and with the interpolation of the model's data config, and
normalised with that config's mean and standard deviation instead of the task's. timm's crop is left out: the model sees the whole image.
"""

from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from glimpsezoo import FeedForward, GlimpseZooError, Task
from glimpsezoo_timm.backbone import create_backbone, is_trunk_and_head, published, unfit
from glimpsezoo_timm.config import TimmConfig
from glimpsezoo_timm.labels import imagenet_rows


class TimmModel(FeedForward):
    """A timm model on the whole image, resized to `size` (height, width) in pixels.

    Raises `GlimpseZooError` for an architecture that timm does not know, and for a size or an option that it cannot take.
    """

    backbone: Any  # an nn.Module with timm's forward_features, forward_head and get_classifier
    mean: Tensor
    std: Tensor

    def __init__(self, config: TimmConfig, task: Task) -> None:
        super().__init__(config, task)
        self.size = _input_size(config, task)
        self.backbone = create_backbone(config, task.channels, self.size, len(task.classes))
        data = resolve_model_data_config(self.backbone)
        self.mode = "bilinear" if data["interpolation"] == "bilinear" else "bicubic"
        # Saved with the weights, because another version of timm may change the architecture's normalisation.
        self.register_buffer("mean", _per_channel(data["mean"], task.channels))
        self.register_buffer("std", _per_channel(data["std"], task.channels))
        example = torch.linspace(-1, 1, task.channels * self.size[0] * self.size[1]).view(1, task.channels, *self.size)
        try:
            self.split = is_trunk_and_head(self.backbone, example)
        except Exception as error:  # as in create_backbone: models that cannot take the size raise many types
            raise unfit(config, task.channels, self.size, error) from None

    @classmethod
    def pretrained(cls, config: TimmConfig, task: Task) -> Self:
        """The model with timm's published weights, and the head cut to the classes of the task.

        Raises `GlimpseZooError` if there are no weights or they cannot be reached, and if the head lacks a class of the task.
        """
        rows = imagenet_rows(task.classes, published(config.architecture).num_classes)
        source = create_backbone(config, task.channels, _input_size(config, task), None, pretrained=True)
        model = cls(config, task)
        model.backbone.load_state_dict(cut_head(source, rows))
        return model

    def prepared(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Images in [0, 1] as the timm model takes them: resized and normalised."""
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode=self.mode, antialias=True, align_corners=False)
            images = images.clamp(0, 1)  # bicubic interpolation overshoots at edges; image libraries clip too
        return (images - self.mean) / self.std

    def features(self, images: Float[Tensor, "B C h w"]) -> Float[Tensor, "B *rest"]:
        """The trunk's features ([B, C, h, w], [B, h, w, C] or [B, tokens, C]), or the logits of a model that is not split."""
        return self.backbone.forward_features(images) if self.split else self.backbone(images)

    def head(self, features: Float[Tensor, "B *rest"]) -> Float[Tensor, "B classes"]:
        return self.backbone.forward_head(features) if self.split else features


def _input_size(config: TimmConfig, task: Task) -> tuple[int, int]:
    return task.image_size if config.image_size is None else (config.image_size, config.image_size)


def _per_channel(values: tuple[float, ...], channels: int) -> Float[Tensor, "C 1 1"]:
    """The values, if there is one per channel. Otherwise (grey images, for example) their mean, for every channel."""
    tensor = torch.tensor(values)
    return (tensor if len(values) == channels else tensor.mean().expand(channels)).view(channels, 1, 1).clone()


def cut_head(source: Any, rows: list[int]) -> dict[str, Tensor]:
    """The state dict of the timm model `source` with only `rows` of its head, in that order, for a model with that many classes.

    Raises `GlimpseZooError` if no linear or convolutional layer of the head has one row per class.
    """
    names = head_layers(source)
    if not names:
        kind = type(source).__name__
        raise GlimpseZooError(f"expected a head with one row per class ({source.num_classes}), got {kind} without: train it instead")
    state = source.state_dict()
    for key in (f"{name}.{kind}" for name in names for kind in ("weight", "bias")):
        if key in state:  # some heads have no bias
            state[key] = state[key][rows]
    return state


def head_layers(source: Any) -> list[str]:
    """The names of the linear and convolutional layers of a timm model's head that have one row per class."""
    heads = source.get_classifier()  # a module, or several whose logits are averaged (distilled models)
    heads = [heads] if isinstance(heads, nn.Module) and not isinstance(heads, nn.ModuleList) else list(heads)
    layers = {module for head in heads for module in head.modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    return [name for name, module in source.named_modules() if module in layers and module.weight.shape[0] == source.num_classes]
