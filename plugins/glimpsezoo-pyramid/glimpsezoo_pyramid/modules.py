"""What the pyramid models and their fully convolutional baselines share: layers, initialisation, resizing."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glimpsezoo_pyramid.architectures import Architecture, Pool

SLOPE = 0.2  # of leaky ReLU; the paper does not print it


def feature_layers(architecture: Architecture, channels: int) -> nn.Sequential:
    """The feature extraction module up to the last feature map, for images with `channels` channels."""
    layers: list[nn.Module] = []
    for layer in architecture.layers:
        if isinstance(layer, Pool):
            layers.append(nn.MaxPool2d(layer.size, stride=2))
        else:
            layers += [nn.Conv2d(channels, layer.out, 3, padding=1), nn.LeakyReLU(SLOPE)]
            channels = layer.out
    return nn.Sequential(*layers)


def initialise(model: nn.Module) -> None:
    """Xavier (uniform) weights and zero biases, as in appendix A.5.2."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def channels_last(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """The same images with the channels innermost in memory, which makes max-pooling on a CPU several times faster.

    It is a clone, because a single channel counts as contiguous in either order, and the layers that follow keep the strides.
    """
    return images.clone(memory_format=torch.channels_last)


def resize_area(images: Float[Tensor, "B C H W"], size: tuple[int, ...]) -> Float[Tensor, "B C h w"]:
    """Images resized to `size` (height, width): every pixel is the mean of the original over the area that it covers.

    Pixels that are partly covered count in part, so the result is exact for any two sizes (torch's "area" rounds to whole pixels), and
    resizing in two steps gives the same as in one.

    >>> resize_area(torch.tensor([[[[0.0, 3.0, 6.0]]]]), (1, 2))
    tensor([[[[1., 5.]]]])
    """
    return _shrink_last(_shrink_last(images, size[1]).transpose(2, 3), size[0]).transpose(2, 3)


def _shrink_last(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C H w"]:
    """`resize_area` along the last axis: for each new pixel, the sum of the old pixels that it covers, weighted by their covered share."""
    old = images.shape[-1]
    if old == size:
        return images
    start = torch.arange(size, device=images.device, dtype=torch.float64) * (old / size)
    stop = start + old / size
    reach = old // size + 2  # the most old pixels that a new one touches
    pixel = start.floor()[:, None] + torch.arange(reach, device=images.device)  # [w, reach]
    covered = (torch.minimum(pixel + 1, stop[:, None]) - torch.maximum(pixel, start[:, None])).clamp(min=0)
    weight = (covered * (size / old)).to(images.dtype)
    pixel = pixel.long().clamp(max=old - 1)
    # One covered pixel after the other, [B, C, H, w] each, because all at once, [B, C, H, w, reach], would take too much memory.
    result = images.new_zeros(*images.shape[:3], size)
    for old_pixel, share in zip(pixel.T, weight.T, strict=True):
        result = result + images.index_select(3, old_pixel) * share
    return result
