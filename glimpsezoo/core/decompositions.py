"""Operations of torch that its ONNX exporter lacks, in terms of operations that it has."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

SQUARE_ROOT_OF_2_PI = 2.50662827463100050242
TAIL = 0.13533528323661269189  # exp(-2)

# The rational approximations of Cephes (Moshier, 1989), which torch evaluates, too: coefficients from the highest power to the lowest.
CENTRE = (
    (-5.99633501014107895267e1, 9.80010754185999661536e1, -5.66762857469070293439e1, 1.39312609387279679503e1, -1.23916583867381258016),
    (1.0, 1.95448858338141759834, 4.67627912898881538453, 8.63602421390890590575e1, -2.25462687854119370527e2, 2.00260212380060660359e2,
     -8.20372256168333339912e1, 1.59056225126211695515e1, -1.18331621121330003142),
)  # fmt: skip
NEAR = (
    (4.05544892305962419923, 3.15251094599893866154e1, 5.71628192246421288162e1, 4.40805073893200834700e1, 1.46849561928858024014e1,
     2.18663306850790267539, -1.40256079171354495875e-1, -3.50424626827848203418e-2, -8.57456785154685413611e-4),
    (1.0, 1.57799883256466749731e1, 4.53907635128879210584e1, 4.13172038254672030440e1, 1.50425385692907503408e1, 2.50464946208309415979,
     -1.42182922854787788574e-1, -3.80806407691578277194e-2, -9.33259480895457427372e-4),
)  # fmt: skip
FAR = (
    (3.23774891776946035970, 6.91522889068984211695, 3.93881025292474443415, 1.33303460815807542389, 2.01485389549179081538e-1,
     1.23716634817820021358e-2, 3.01581553508235416007e-4, 2.65806974686737550832e-6, 6.23974539184983293730e-9),
    (1.0, 6.02427039364742014255, 3.67983563856160859403, 1.37702099489081330271, 2.16236993594496635890e-1,
     1.34204006088543189037e-2, 3.28014464682127739104e-4, 2.89247864745380683936e-6, 6.79019408009981274425e-9),
)  # fmt: skip


def ndtri(p: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The inverse of the normal distribution function, as in Cephes. At 0 and 1, it is the infinity that belongs there."""
    lower = torch.where(p > 0.5, 1 - p, p)
    middle = p - 0.5
    square = middle * middle
    central = (middle + middle * (square * _ratio(square, CENTRE))) * SQUARE_ROOT_OF_2_PI
    x = (-2 * lower.clamp(max=TAIL).log()).sqrt()
    z = 1 / x
    far = x - x.log() * z - z * torch.where(x < 8, _ratio(z, NEAR), _ratio(z, FAR))
    far = torch.where(lower == 0, x, far)  # infinite
    return torch.where(lower > TAIL, central, torch.where(p > 0.5, far, -far))


def _ratio(x: Tensor, coefficients: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    above, below = (_polynomial(x, each) for each in coefficients)
    return above / below


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def attention(query: Tensor, key: Tensor, value: Tensor, *given: Any, **named: Any) -> Any:
    """Attention without an axis of heads; with one, the exporter has it."""
    if query.ndim != 3:
        return NotImplemented
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], *given, **named).squeeze(1)


def stable_sort(x: Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """ONNX sorts by TopK, in which the lower index comes first among equal values."""
    values, index = x.topk(x.shape[dim], dim, largest=descending)
    return values, index


def stable_argsort(x: Tensor, *, stable: bool, dim: int = -1, descending: bool = False) -> Tensor:
    return stable_sort(x, stable=stable, dim=dim, descending=descending)[1]


def repeated_places(repeats: Int[Tensor, "n"], output_size: int | None = None) -> Int[Tensor, "m"]:
    """Each place 0 to n - 1 as often as `repeats` says. That of the exporter fails if n is 0."""
    total: Any = repeats.sum().item() if output_size is None else output_size
    starts = repeats.new_zeros(total + 1).index_add(0, repeats.cumsum(0), torch.ones_like(repeats))  # how many places end before this row
    return starts.cumsum(0)[:total]


def repeat_interleave(x: Tensor, repeats: Tensor, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    x, dim = (x.flatten(), 0) if dim is None else (x, dim)
    return x.index_select(dim, repeated_places(repeats.expand(x.shape[dim]), output_size))


def decompositions() -> dict[Any, Callable[..., Any]]:
    """What `ExportedProgram.run_decompositions` takes."""
    aten = torch.ops.aten
    return {
        aten.special_ndtri.default: ndtri,
        aten.scaled_dot_product_attention.default: attention,
        aten.repeat_interleave.Tensor: repeated_places,
        aten.repeat_interleave.self_Tensor: repeat_interleave,
        aten.sort.stable: stable_sort,
        aten.argsort.stable: stable_argsort,
    }
