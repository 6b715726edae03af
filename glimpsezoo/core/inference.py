"""Inference: the same model, with its weights arranged once instead of at every call.

A convolution on a CPU brings its weights into oneDNN's own order at every call. For one small image, that takes longer than the
convolution: a ResNet-18 at 96 px reads 45 MB of weights for .3 GMACs. And a batch norm behind a convolution is a linear map that its
weights can contain. Within `inference`, both are done once, and a ReLU is applied while the convolution writes its output. Outputs differ
by rounding only.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, NoReturn, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from glimpsezoo.core.protocol import Computing, GlimpseModel
from glimpsezoo.errors import GlimpseZooError

Forward = Callable[[Tensor], Tensor]
M = TypeVar("M", bound=nn.Module)


class _Arranged(NamedTuple):
    """The replaced `forward`s of a model, and the weights that they were made from."""

    places: list[tuple[int, int]]
    """Address and version of every weight."""
    weights: list[Tensor]
    """These weights. Holding them keeps others from coming to lie at their addresses."""
    forwards: list[tuple[nn.Module, Forward]]
    """What replaces the `forward` of a module."""


_ARRANGED: WeakKeyDictionary[nn.Module, _Arranged] = WeakKeyDictionary()


def _raise_versions(optimiser: Optimizer, *_: object) -> None:
    """Increment the versions of parameters after a fused step, which changes them without doing so: `inference` detects changes by them."""
    for group in optimiser.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            torch.autograd.graph.increment_version(parameter)


register_optimizer_step_post_hook(_raise_versions)


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Run `model` in eval mode, without gradients, as fast as its weights allow.

    Batch norms and ReLUs are folded into the convolutions before them, and convolutions keep their weights in oneDNN's order. Entering
    again is cheap as long as the weights are the same, and threads may share a model. Training or attacking the model within it is not
    possible. What changes weights behind autograd's back (through `.data`) is not seen: write to them under `torch.no_grad()`.

    >>> import glimpsezoo as gz
    >>> model = gz.load("mgnet.digits")
    >>> with gz.inference(model):
    ...     trace = gz.rollout(model, torch.zeros(1, 1, 64, 64))
    """
    _enter(model)
    try:
        with torch.no_grad():  # in torch.inference_mode, torch's FLOP counter sees other, coarser operations
            yield
    finally:
        _leave(model)


class _InUse:
    """A model within `inference`, in one or several threads: the first to enter arranges it, the last to leave restores it."""

    def __init__(self, model: nn.Module) -> None:
        self.users = 0
        self.arrangement = ExitStack()
        self.arrangement.enter_context(evaluating(model))
        for module, forward in _arranged(model):
            module.__dict__["forward"] = forward
            self.arrangement.callback(module.__dict__.pop, "forward", None)


_IN_USE: WeakKeyDictionary[nn.Module, _InUse] = WeakKeyDictionary()
_CHANGES = threading.RLock()  # a thread that left while another one computes would give that one half of the arrangement


def _enter(model: nn.Module) -> None:
    with _CHANGES:
        if model not in _IN_USE:
            _IN_USE[model] = _InUse(model)
        _IN_USE[model].users += 1


def _leave(model: nn.Module) -> None:
    with _CHANGES:
        used = _IN_USE[model]
        used.users -= 1
        if not used.users:
            del _IN_USE[model]
            used.arrangement.close()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run `model` in eval mode, with gradients if they are on; afterwards every module has the mode that it had."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _arranged(model: nn.Module) -> list[tuple[nn.Module, Forward]]:
    """What replaces the `forward` of each module, arranged anew if weights changed; nothing if the model has to run as it is."""
    if not _may_arrange(model):
        return []
    modules = list(model.modules())
    if any(isinstance(vars(module).get("forward"), _PackedConvolution) for module in modules):  # within `inference` already
        return []
    held = (each for module in modules for each in (*module._parameters.values(), *module._buffers.values()))  # quicker than parameters()
    weights = [each for each in held if each is not None]
    if any(each.is_inference() for each in weights):
        return []  # weights made in torch.inference_mode have no version, so nobody could tell whether they changed
    places = [(each.data_ptr(), each._version) for each in weights]
    found = _ARRANGED.get(model)
    if found is None or found.places != places:
        plain = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())
        found = _Arranged(places, [each.detach() for each in weights], list(_replacements(model)) if plain else [])
        _ARRANGED[model] = found
    return found.forwards


def _may_arrange(model: nn.Module) -> bool:
    """Whether oneDNN is available and neither mixed precision nor the compiler, which arrange weights themselves, is in use."""
    if isinstance(model, GlimpseModel) and model.computing != Computing():
        return False
    return torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled and not torch.is_autocast_enabled("cpu")


def _replacements(model: nn.Module) -> Iterator[tuple[nn.Module, Forward]]:
    followers = {conv: then for child in model.children() for conv, then in _followed(child)}
    for module in model.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str) and _untouched(module):
            norm, relu = followers.get(module, (None, None))
            yield module, _PackedConvolution(module, norm, relu=relu is not None)
            yield from ((each, _as_it_is) for each in (norm, relu) if each is not None)


def _untouched(module: nn.Module) -> bool:
    """Whether the module runs its class's `forward`, not one that another library gave it."""
    return "forward" not in vars(module)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _followed(network: nn.Module) -> Iterator[tuple[nn.Conv2d, tuple[nn.BatchNorm2d | None, nn.ReLU | None]]]:
    """Convolutions of a network whose output goes only to a batch norm with fixed statistics, a ReLU, or the one and then the other.

    None for a network that torch.fx cannot follow.
    """
    modules = dict(network.named_modules())
    if not any(type(module) in (nn.BatchNorm2d, nn.ReLU) for module in modules.values()):
        return
    try:
        nodes = fx.symbolic_trace(network).graph.nodes
    except Exception:  # a network may fail in any way when it is traced; then it runs as it is
        return
    called = {node: modules.get(str(node.target)) for node in nodes if node.op == "call_module"}
    times = Counter(called.values())

    def after(node: fx.Node, kind: type[M]) -> tuple[fx.Node, M | None]:
        """The module of this kind that is the only one to take the output of `node`, and the node of its own output."""
        user = node
        while len(user.users) == 1:
            user = next(iter(user.users))
            module = called.get(user)
            if module is not None and type(module) is kind and times[module] == 1 and _untouched(module):
                return user, module
            if type(module) is not nn.Identity:
                break
        return node, None

    for node, conv in called.items():
        if type(conv) is nn.Conv2d and times[conv] == 1:  # it is not shared with another place
            last, norm = after(node, nn.BatchNorm2d)
            if norm is None or norm.running_mean is not None:
                yield conv, (norm, after(last, nn.ReLU)[1])


class _PackedConvolution:
    """A convolution with the norm and ReLU behind it. Weights are in oneDNN's order for the first input's size; other sizes work too."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, *, relu: bool) -> None:
        weight, bias = conv.weight, conv.bias
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            weight, bias = fuse_conv_bn_weights(weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.layout = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.relu = relu
        self.packed: Tensor | None = None

    def __reduce__(self) -> NoReturn:
        raise GlimpseZooError("a model cannot be copied or saved within gz.inference, where its weights are arranged anew: do it outside")

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.dtype != torch.float32:  # as the convolution would: for one image without a batch, or with its error
            padding, stride, dilation, groups = self.layout
            found = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
            return found.relu_() if self.relu else found
        if self.packed is None:
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.layout, list(x.shape))
        return torch.ops.mkldnn._convolution_pointwise(x, self.packed, self.bias, *self.layout, "relu" if self.relu else "none", [], "")
