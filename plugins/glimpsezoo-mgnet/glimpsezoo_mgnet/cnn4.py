"""The small CNN of MGNet's appendix B on its own: a feed-forward network, with one look at the whole image.

Tan, Dong & Ma, "Multi-Glimpse Network", BMVC 2021, https://arxiv.org/abs/2111.02018, appendix B: four convolutions, global average
pooling and a fully connected layer. 67.889 M MACs at 112 px and ten classes. (The paper's own baseline, "FF-Net", is MGNet with one
glimpse and no downsampling, including its fusion and locator: 67.958 M.)
"""

from jaxtyping import Float
from torch import Tensor, nn

from glimpsezoo import FeedForward, Normalise, Task
from glimpsezoo_mgnet.backbones import SMALL_CNN, create_backbone
from glimpsezoo_mgnet.config import CNN4Config


class CNN4(FeedForward):
    """The whole image, once, at its full resolution.

    Raises `GlimpseZooError` for images with a side below 12 pixels.
    """

    def __init__(self, config: CNN4Config, task: Task) -> None:
        super().__init__(config, task)
        self.normalise = Normalise(task)
        self.backbone, width = create_backbone(SMALL_CNN, task.channels, task.image_size)
        self.head = nn.Linear(width, len(task.classes))

    def features(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        return self.backbone(self.normalise(images))
