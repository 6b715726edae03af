"""What the authors count (`canvit_pytorch.flops`, there in FLOPs): the products of linear layers, attention and the patch embedding.

Taking the glimpse, normalisation, rotations, activations and sums are free. So the cost of T glimpses is T times that of one.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glimpsezoo_canvit.model import CanViT


def paper_macs(model: "CanViT", glimpses: int) -> int:
    """MACs per image of a run of so many glimpses, without the classifier, which the authors' count leaves to the task."""
    from canvit_pytorch.flops import glimpse_flops  # pyright: ignore[reportMissingImports]

    config = model.config
    return glimpses * glimpse_flops(model.canvit.config, glimpse_size_px=config.glimpse, canvas_grid_size=config.canvas) // 2
