"""Inference: a model as it is, with its weights arranged once instead of at every call.

A convolution on a CPU brings its weights into oneDNN's own order at every call. For one small image, that takes longer than the
convolution: a ResNet-18 at 96 px reads 45 MB of weights for .3 GMACs. And a batch norm behind a convolution is a linear map that its
weights can contain. Within `inference`, both are done once. Outputs differ by rounding only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from glimpsezoo.core.protocol import Computing, GlimpseModel

Forward = Callable[[Tensor], Tensor]


class _Arranged(NamedTuple):
    """What a model runs within `inference`."""

    weights: list[tuple[Tensor, int]]
    """The weights that it was made of, each with its version. Holding them keeps others from coming to lie at their addresses."""
    forwards: list[tuple[nn.Module, Forward]]
    """What replaces the `forward` of a module."""


_ARRANGED: WeakKeyDictionary[nn.Module, _Arranged] = WeakKeyDictionary()


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Run `model` in eval mode, without gradients, as fast as its weights allow.

    Batch norms are folded into the convolutions before them, and on a CPU convolutions keep their weights in oneDNN's order. Entering
    again is cheap as long as the weights are the same. Training or attacking the model within it is not possible.

    >>> import glimpsezoo as gz
    >>> model = gz.load("mgnet.digits")
    >>> with gz.inference(model):
    ...     trace = gz.rollout(model, torch.zeros(1, 1, 64, 64))
    """
    arranged_already = any(isinstance(vars(module).get("forward"), _PackedConvolution) for module in model.modules())
    forwards = _arranged(model) if _may_arrange(model) and not arranged_already else []
    for module, forward in forwards:
        module.__dict__["forward"] = forward
    try:
        # In torch.inference_mode, torch's FLOP counter sees other, coarser operations.
        with evaluating(model), torch.no_grad():
            yield
    finally:
        for module, _ in forwards:
            module.__dict__.pop("forward", None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run `model` in eval mode, with gradients if they are on; afterwards every module has the mode that it had."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _may_arrange(model: nn.Module) -> bool:
    """Whether all is in float32 on a CPU with oneDNN: mixed precision, the compiler and accelerators have their own ways.

    Weights made in torch.inference_mode have no version, so that nobody could tell whether they changed.
    """
    if isinstance(model, GlimpseModel) and model.computing != Computing():
        return False
    plain = all(p.device.type == "cpu" and p.dtype == torch.float32 and not p.is_inference() for p in model.parameters())
    return plain and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled and not torch.is_autocast_enabled("cpu")


def _arranged(model: nn.Module) -> list[tuple[nn.Module, Forward]]:
    """What replaces the `forward` of each module, arranged anew if weights changed."""
    weights = [(tensor.detach(), tensor._version) for tensor in (*model.parameters(), *model.buffers())]
    found = _ARRANGED.get(model)
    if found is None or _places(found.weights) != _places(weights):
        found = _ARRANGED[model] = _Arranged(weights, list(_replacements(model)))
    return found.forwards


def _places(weights: list[tuple[Tensor, int]]) -> list[tuple[int, int]]:
    return [(tensor.data_ptr(), version) for tensor, version in weights]


def _replacements(model: nn.Module) -> Iterator[tuple[nn.Module, Forward]]:
    norms = {conv: norm for child in model.children() for conv, norm in _foldable(child)}
    for module in model.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str) and _untouched(module):
            norm = norms.get(module)
            yield module, _PackedConvolution(module, norm)
            if norm is not None:
                yield norm, _as_it_is


def _untouched(module: nn.Module) -> bool:
    """Whether the module runs its class's `forward`, not one that another library gave it."""
    return "forward" not in vars(module)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _foldable(network: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions of a network whose output goes only to a batch norm with fixed statistics.

    None for a network that torch.fx cannot follow.
    """
    modules = dict(network.named_modules())
    if not any(type(module) is nn.BatchNorm2d for module in modules.values()):
        return
    try:
        nodes = fx.symbolic_trace(network).graph.nodes
    except Exception:  # a network may fail in any way when it is traced; then it runs as it is
        return
    calls: list[Any] = [modules.get(node.target) for node in nodes if node.op == "call_module"]
    for node in nodes:
        norm = modules.get(node.target) if node.op == "call_module" else None
        before = node.args[0] if node.args else None
        if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        conv = modules.get(str(before.target)) if before.op == "call_module" else None
        once = calls.count(conv) == calls.count(norm) == 1  # neither is shared with another place
        if type(conv) is nn.Conv2d and once and _untouched(norm):
            yield conv, norm


class _PackedConvolution:
    """A convolution with the weights in oneDNN's order for the size of its first input; other sizes are right, too."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> None:
        weight, bias = conv.weight, conv.bias
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            weight, bias = fuse_conv_bn_weights(weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.layout = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.packed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.dtype != torch.float32:  # as the convolution would: for one image without a batch, or with its error
            padding, stride, dilation, groups = self.layout
            return F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        if self.packed is None:
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.layout, list(x.shape))
        return torch.ops.mkldnn._convolution_pointwise(x, self.packed, self.bias, *self.layout, "none", [], "")
