"""The two feed-forward baselines of Mnih et al. (2014), section 4.1: one look at the whole image.

`ram-fc`: two hidden layers of rectified units. `ram-conv`: one convolution of 10 x 10 px with stride 5, one fully connected layer, both
rectified. Pixels are normalised by the task's mean and standard deviation, which the paper does not mention.
"""

from torch import nn

from glimpsezoo import FeedForward, GlimpseZooError, Normalise, PaperMacs, Task
from glimpsezoo_ram.config import ConvolutionalConfig, FullyConnectedConfig

KERNEL, STRIDE = 10, 5


class FullyConnected(FeedForward):
    """Two hidden layers on all pixels."""

    def __init__(self, config: FullyConnectedConfig, task: Task) -> None:
        super().__init__(config, task)
        height, width = task.image_size
        pixels, hidden = task.channels * height * width, config.hidden
        self.features = nn.Sequential(
            Normalise(task), nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.head = nn.Linear(hidden, len(task.classes))
        self._macs = pixels * hidden + hidden * hidden + hidden * len(task.classes)

    def paper_macs(self, step: int) -> PaperMacs:
        """Linear layers, without biases."""
        return PaperMacs("linear layers", self._macs)


class Convolutional(FeedForward):
    """One convolution and one hidden layer. Raises `GlimpseZooError` for images with a side below 10 pixels."""

    def __init__(self, config: ConvolutionalConfig, task: Task) -> None:
        super().__init__(config, task)
        height, width = task.image_size
        if min(height, width) < KERNEL:
            raise GlimpseZooError(f"ram-conv: expected images of at least 10 x 10 px, got {height} x {width}: choose larger images")
        places = ((height - KERNEL) // STRIDE + 1) * ((width - KERNEL) // STRIDE + 1)
        filters, hidden, classes = config.filters, config.hidden, len(task.classes)
        self.features = nn.Sequential(
            Normalise(task),
            nn.Conv2d(task.channels, filters, KERNEL, STRIDE),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(filters * places, hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(hidden, classes)
        self._macs = KERNEL**2 * task.channels * filters * places + filters * places * hidden + hidden * classes

    def paper_macs(self, step: int) -> PaperMacs:
        """Convolution and linear layers, without biases."""
        return PaperMacs("convolutions and linear layers", self._macs)
