"""One training on several processes: each takes its share of every batch, and all take the step of the whole batch.

DistributedDataParallel hooks the forward pass of one module, once per step. A training step calls the phases of a model, or only its
networks, as often as it likes, and may leave parameters out. So gradients are added up here, after the backward pass.

The loss of a process is the mean over its n of the N images of a batch. Multiplied by n / N, its gradients add up to those of the whole
batch if every term is a mean over images. What is another function of the batch (batch statistics, the square of a mean) is computed from
sums over all processes, through which gradients pass: `Share.mean`, and batch norms. Whether a training step does so is tried before its
first step (`probe.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from glimpsezoo.ranks import lost


@dataclass
class Share:
    """Which images of a batch this process takes: every `world`-th, so that an image of a smaller batch stays where it was."""

    rank: int = 0
    world: int = 1
    sums: int = 0
    """The number of sums so far, in which all processes must agree."""

    def of(self, whole: Sequence[Any] | Tensor) -> Any:
        """This process's part of a sequence with one entry per image."""
        return whole[self.rank :: self.world]

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes. Its gradient is that of the sum of their losses."""
        if self.world == 1:
            return values
        self.sums += 1
        found = _Total.apply(values)
        assert isinstance(found, Tensor)
        return found

    def gathered(self, values: Float[Tensor, "*s"]) -> Float[Tensor, "{self.world} *s"]:
        """The values of every process, with gradients."""
        return self.total(torch.stack([values if rank == self.rank else torch.zeros_like(values) for rank in range(self.world)]))

    def mean(self, values: Float[Tensor, "n *s"]) -> Float[Tensor, "*s"]:
        """The mean over the rows of all processes, with gradients."""
        if self.world == 1:
            return values.mean(0)
        sums = self.total(torch.cat([values.sum(0).flatten(), values.new_tensor([len(values)])]))
        return (sums[:-1] / sums[-1]).reshape(values.shape[1:])

    def told(self, what: Any) -> Any:
        """The value of process 0, broadcast to all processes."""
        if self.world == 1:
            return what
        found = [what]
        with lost():
            dist.broadcast_object_list(found)
        return found[0]

    def rows(self, own: Float[Tensor, "n *s"]) -> Float[Tensor, "N *s"]:
        """The rows of all processes in the order of the batch, without gradients. The opposite of `of`."""
        if self.world == 1:
            return own
        counts = self.gathered(torch.tensor([len(own)])).flatten().tolist()
        padded = F.pad(own.detach(), (0, 0) * (own.ndim - 1) + (0, max(counts) - len(own)))
        every = self.gathered(padded)  # [world, most, ...]
        return every.transpose(0, 1).flatten(0, 1)[: sum(counts)]


class _Total(torch.autograd.Function):
    """The sum over all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _sum(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _sum(gradients[0])


def _sum(values: Tensor) -> Tensor:
    found = values.detach().clone(memory_format=torch.contiguous_format)
    with lost():
        dist.all_reduce(found)
    return found


def sum_gradients(parameters: Iterable[nn.Parameter], share: Share) -> None:
    """Replace every gradient by the sum over all processes. A parameter that none of them used keeps none."""
    known = list(parameters)
    if share.world == 1 or not known:
        return
    used = torch.tensor([p.grad is not None for p in known]).to(known[0])
    flat = torch.cat([*(torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in known), used])
    *found, used = _sum(flat).split([*(p.numel() for p in known), len(known)])
    for parameter, gradient, users in zip(known, found, used.tolist(), strict=True):
        parameter.grad = gradient.view(parameter.shape).contiguous(memory_format=_format(parameter)) if users else None


def _format(like: Tensor) -> torch.memory_format:
    last = like.ndim == 4 and not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


class WholeBatchNorm(TorchFunctionMode):
    """A context in which batch norms in training use the statistics of the whole batch, over all processes and on any device.

    (torch's SyncBatchNorm needs GPUs.)
    """

    def __init__(self, share: Share) -> None:
        super().__init__()
        self.share = share

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return self._normalised(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _normalised(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        values = input if input.dtype == torch.double else input.float()
        mean, variance, count = self._statistics(values)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((variance * count / (count - 1)).to(running_var), momentum)
        scale = (variance + eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        shape = (1, -1, *(1,) * (input.ndim - 2))
        found = (values - mean.view(shape)) * scale.view(shape)
        return (found if bias is None else found + bias.view(shape)).to(input.dtype)

    def _statistics(self, values: Float[Tensor, "n C *s"]) -> tuple[Float[Tensor, "C"], Float[Tensor, "C"], Float[Tensor, ""]]:
        """Mean, variance (biased) and number of the values per channel, from those of every process (Chan et al., 1979)."""
        others = [0, *range(2, values.ndim)]
        mean = values.mean(others)
        squares = (values - mean.view(1, -1, *(1,) * (values.ndim - 2))).square().sum(others)
        number = torch.full_like(mean[:1], values.numel() // len(mean))
        means, moments, numbers = self.share.gathered(torch.cat([mean, squares, number])).split([len(mean), len(mean), 1], 1)
        count = numbers.sum()
        whole = (numbers * means).sum(0) / count
        return whole, (moments + numbers * (means - whole).square()).sum(0) / count, count
