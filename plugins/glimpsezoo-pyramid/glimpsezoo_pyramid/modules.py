"""What the pyramid models and their fully convolutional baselines share: layers, initialisation, resizing."""

from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

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


def resize_area(images: Float[Tensor, "B C H W"], size: tuple[int, ...]) -> Float[Tensor, "B C h w"]:
    """Images resized to `size` (height, width): every pixel is the mean of the original over the area that it covers.

    Pixels that are partly covered count in part, so the result is exact for any two sizes (torch's "area" rounds to whole pixels), and
    resizing in two steps gives the same as in one.

    >>> resize_area(torch.tensor([[[[0.0, 3.0, 6.0]]]]), (1, 2))
    tensor([[[[1., 5.]]]])
    """
    return _shrink_rows(_shrink_rows(images, size[0]).mT, size[1]).mT


def _shrink_rows(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C h W"]:
    """`resize_area` of the rows: each new row is the sum of the old rows that it covers, weighted by their covered share."""
    old = images.shape[2]
    if old % size == 0:
        return F.avg_pool2d(images, (old // size, 1)) if old > size else images
    row, share = _covered(old, size, images.device)
    rows = images.contiguous().index_select(2, row.flatten()).unflatten(2, row.shape)  # [B, C, h, reach, W], at most three times the image
    return (rows * share.to(images)[:, :, None]).sum(3)


@cache
def _covered(old: int, size: int, device: torch.device) -> tuple[Int[Tensor, "h reach"], Float[Tensor, "h reach"]]:
    """For each of `size` new rows, the old rows (of `old`) that it may cover, and their share in it."""
    with torch.inference_mode(False):  # tensors made in inference mode could not be saved for a backward pass later
        start = torch.arange(size, device=device, dtype=torch.float64) * (old / size)
        stop = start + old / size
        row = start.floor()[:, None] + torch.arange(old // size + 2, device=device)  # [h, reach]: the most rows that one can cover
        covered = (torch.minimum(row + 1, stop[:, None]) - torch.maximum(row, start[:, None])).clamp(min=0)
        return row.long().clamp(max=old - 1), covered * (size / old)
