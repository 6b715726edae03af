"""What the pyramid models and their fully convolutional baselines share: layers, initialisation."""

from torch import nn

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
