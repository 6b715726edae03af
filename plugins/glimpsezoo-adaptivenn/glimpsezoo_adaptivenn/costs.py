"""What the paper counts: multiply-accumulates of convolutions, linear layers, attention and writing, without biases.

A run that stops after t steps uses the glance net, t - 1 fixations and one classifier, because exits by the value need no prediction;
before each fixation, it uses the policy and the value net. That this is what the authors count is a conclusion from their numbers: a mean
of 3.15 fixations after the glance costs 4.815 G in this way, and they print 4.85 G. If every step had a prediction, it would be 5.93 G.
"""

from glimpsezoo_adaptivenn.config import AdaptiveNNConfig


def paper_macs(config: AdaptiveNNConfig, channels: int, classes: int, step: int, *, chooses: bool = True) -> int:
    """The MACs of a run that stops at `step`, for images of `channels` channels. chooses: whether policy and value net run."""
    tokens, width = (config.patch // config.token) ** 2, config.width  # also the cells of the state map
    block = 12 * tokens * width**2 + 2 * tokens**2 * width  # an attention's four products and the MLP's eight; queries by keys, and values
    embed = tokens * channels * config.token**2 * width
    classifier = config.head_depth * block + width * classes
    read = tokens * (7**2 * width + 8 * width**2)
    write = tokens * (4 * width**2 + 4 * width * config.window**2) + tokens**2 * width
    fixation = embed + config.depth * block + read + write
    glance = embed + (config.depth - config.head_depth) * block
    choice = _map_net(config, tokens, 2) + _map_net(config, tokens, 1) if chooses else 0
    return glance + classifier + (step - 1) * (fixation + choice)


def _map_net(config: AdaptiveNNConfig, cells: int, outputs: int) -> int:
    channels, hidden = config.locator_channels, config.locator_hidden
    maps = cells * (3**2 * config.width + config.width * channels)
    return maps + cells * channels * hidden + hidden * (hidden // 2) + hidden // 2 * outputs
