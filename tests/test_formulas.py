"""Every formula against a count by hand; an operation without a formula makes a total 'at least'."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d

import glimpsezoo as gz
from glimpsezoo.core.formulas import FORMULAS, MOVES, UNCOUNTED
from glimpsezoo.core.macs import count_macs

X = torch.rand(2, 10, 8)  # two sequences of ten tokens
TOKENS = 20
GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both", [False, True], ids=["forwards", "both ways"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_a_recurrent_layer_passes_each_token_through_each_matrix(kind: type[nn.RNNBase], both: bool, packed: bool) -> None:
    model, gates, ways = kind(8, 6, num_layers=2, batch_first=True, bidirectional=both), GATES[kind], 1 + both
    x = nn.utils.rnn.pack_padded_sequence(X, [10, 4], batch_first=True) if packed else X
    first, second = 6 * (8 + 6), 6 * (6 * ways + 6)
    count = count_macs(lambda: model(x))
    assert count.macs == (14 if packed else TOKENS) * ways * gates * (first + second)
    assert not count.missing


def test_the_projection_of_an_lstm_is_counted() -> None:
    model = nn.LSTM(8, 6, batch_first=True, proj_size=3)
    assert count_macs(lambda: model(X)).macs == TOKENS * (4 * 6 * (8 + 3) + 6 * 3)


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTMCell(8, 6), 4), (nn.GRUCell(8, 6), 3), (nn.RNNCell(8, 6, nonlinearity="relu"), 1)])
def test_a_cell_costs_what_its_layer_costs_a_token(cell: nn.Module, gates: int) -> None:
    count = count_macs(lambda: cell(X[:, 0]))
    assert (count.macs, count.missing) == (2 * gates * 6 * (8 + 6), frozenset())


def test_the_layer_of_cudnn_costs_the_same() -> None:
    """Runs only on a GPU; its shapes are known without one."""
    model = nn.LSTM(8, 6, num_layers=2, bidirectional=True, device="meta")
    x, state = torch.empty(10, 2, 8, device="meta"), torch.empty(4, 2, 6, device="meta")

    def run() -> None:
        weights = list(model._flat_weights)
        torch.ops.aten._cudnn_rnn(x, weights, 4, None, state, state, 2, 6, 0, 2, False, 0.0, False, True, [], None)

    count = count_macs(run)
    assert (count.macs, count.missing) == (TOKENS * 2 * 4 * (6 * (8 + 6) + 6 * (12 + 6)), frozenset())


A, B, V, W = torch.rand(3, 4, 5), torch.rand(3, 5, 6), torch.rand(5), torch.rand(4)


@pytest.mark.parametrize(
    ("run", "macs"),
    [
        (lambda: A @ V, 3 * 4 * 5),  # one learned query over 3 x 4 tokens
        (lambda: A[0] @ V, 4 * 5),
        (lambda: torch.addmv(W, A[0], V), 4 * 5),
        (lambda: V @ V, 5),
        (lambda: torch.vdot(V, V), 5),
        (lambda: torch.addr(A[0], W, V), 4 * 5),
        (lambda: torch.baddbmm(torch.zeros(3, 4, 6), A, B), 3 * 4 * 5 * 6),
        (lambda: torch.addbmm(torch.zeros(4, 6), A, B), 3 * 4 * 5 * 6),
        (lambda: torch.tensordot(A[0], B[0], dims=1), 4 * 5 * 6),
        (lambda: torch.einsum("bij,jk->bik", A, B[0]), 3 * 4 * 5 * 6),
        (lambda: torch.einsum("bij,i->bj", A, W), 3 * 4 * 5),
        (lambda: F.bilinear(A[0], torch.rand(4, 6), torch.rand(7, 5, 6)), 4 * (7 * 5 * 6 + 7 * 6)),
        (lambda: nn.Bilinear(5, 6, 7)(A, torch.rand(3, 4, 6)), 12 * (7 * 5 * 6 + 7 * 6)),
        (lambda: nn.Conv1d(4, 6, 3)(A), 3 * 6 * 3 * 4 * 3),
        (lambda: nn.Conv3d(2, 6, 3)(torch.rand(1, 2, 5, 5, 5)), 6 * 27 * 2 * 27),
        (lambda: nn.ConvTranspose2d(4, 6, 3)(torch.rand(1, 4, 5, 5)), 25 * 4 * 6 * 9),
        (lambda: DeformConv2d(4, 6, 3, groups=2)(torch.rand(1, 4, 8, 8), torch.rand(1, 18, 6, 6)), 6 * 36 * 2 * 9),
        (lambda: nn.EmbeddingBag(10, 4)(torch.tensor([[1, 2, 3]])), 0),  # sums cost nothing
        (lambda: nn.EmbeddingBag(10, 4, mode="sum")(torch.tensor([[1, 2, 3]]), per_sample_weights=torch.rand(1, 3)), 3 * 4),
        (lambda: F.scaled_dot_product_attention(torch.rand(1, 4, 7, 8), *torch.rand(2, 1, 4, 9, 8)), 2 * 4 * 7 * 9 * 8),
        (lambda: F.scaled_dot_product_attention(torch.rand(1, 4, 7, 8), *torch.rand(2, 1, 2, 9, 8), enable_gqa=True), 2 * 4 * 7 * 9 * 8),
        (lambda: torch._int_mm(torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8)), 32 * 16 * 8),
    ],
)
def test_products_of_all_kinds_are_counted(run, macs: int) -> None:
    count = count_macs(run)
    assert (count.macs, count.missing) == (macs, frozenset())


@torch.library.custom_op("glimpsezoo_tests::product", mutates_args=())
def product(x: Tensor) -> Tensor:
    return x @ x.mT


@torch.library.custom_op("glimpsezoo_tests::nearest", mutates_args=())
def nearest(x: Tensor) -> Tensor:
    """Returns only indices, but computes products."""
    return (x @ x.mT).argmax(-1)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda: product(A), "glimpsezoo_tests::product"),
        (lambda: nearest(A), "glimpsezoo_tests::nearest"),
        (lambda: torch.fft.rfft(A), "_fft_r2c"),
        (lambda: torch.linalg.inv(torch.eye(3)), "linalg_inv_ex"),
        (lambda: torch.cdist(A, A), "_cdist_forward"),
        (lambda: torch.matrix_exp(torch.eye(3)), "linalg_matrix_exp"),
    ],
)
def test_what_may_hold_products_and_has_no_formula_is_missing(run, name: str) -> None:
    count = count_macs(lambda: (run(), nn.Linear(5, 2)(A)))
    assert count.macs == 3 * 4 * 5 * 2
    assert count.missing == {name}
    assert name in count.uncounted


def test_what_counts_as_nothing_by_convention_leaves_a_total_whole() -> None:
    def run() -> None:
        x = torch.rand(2, 4, 8, 8)
        for layer in (nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(8), nn.InstanceNorm2d(4), nn.RMSNorm(8), nn.LocalResponseNorm(2)):
            layer.eval()(x)
        for layer in (
            nn.Hardswish(),
            nn.GELU(),
            nn.PReLU(),
            nn.GLU(1),
            nn.Softmax(1),
            nn.LogSoftmax(1),
            nn.Hardsigmoid(),
            nn.Mish(),
            nn.SELU(),
        ):
            layer(x)
        for layer in (
            nn.MaxPool2d(2),
            nn.AvgPool2d(2),
            nn.AdaptiveAvgPool2d(3),
            nn.AdaptiveMaxPool2d(3),
            nn.LPPool2d(2, 2),
            nn.PixelShuffle(2),
        ):
            layer(x)
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area"):
            F.interpolate(x, scale_factor=2, mode=mode)
        (
            F.interpolate(x, size=(4, 4), mode="bilinear", antialias=True),
            F.grid_sample(x, F.affine_grid(torch.rand(2, 2, 3), [2, 4, 8, 8], False), align_corners=False),
        )
        F.unfold(x, 3), F.fold(F.unfold(x, 2), (8, 8), 2), x.cumsum(1), x.std(1), x.norm(), F.normalize(x), x.logsumexp(1), x.median(1)
        F.dropout(x, training=True), torch.randn_like(x), x[0, 0].multinomial(2), F.gumbel_softmax(x), x.unsqueeze_(0)

    count = count_macs(run)
    assert (count.macs, count.missing) == (0, frozenset())


@pytest.mark.parametrize("name", ["cnn4.digits", "mgnet.digits", "ranzato.digits", "pyramid-m3.digits"])
@pytest.mark.parametrize("policy", ["learned", "random"])
def test_the_zoos_own_models_lack_no_formula(name: str, policy: str) -> None:
    if policy == "random" and name == "cnn4.digits":
        pytest.skip("it does not choose where it looks")
    card = gz.load(name)
    model = card if policy == "learned" else gz.create_model(name.partition(".")[0], data="digits", policy=policy).eval()
    images = torch.rand(2, model.task.channels, *model.task.image_size)
    meter = gz.Meter(model)
    with torch.no_grad():
        gz.rollout(model, images, noise=gz.Noise.of(0, torch.arange(2)), record=gz.Record(every_step=True, meter=meter))
    assert meter.missing == set()
    assert meter.uncounted


def test_losses_and_choices_leave_a_total_whole() -> None:
    """A model may compute the log-probability of its draws."""

    def run() -> None:
        logits, target, labels = torch.rand(4, 5), torch.rand(4, 5).round(), torch.arange(4)
        for loss in (F.binary_cross_entropy_with_logits, F.binary_cross_entropy, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
            loss(logits, target)
        for loss in (F.cross_entropy, F.nll_loss, F.multi_margin_loss):
            loss(logits, labels)
        F.kl_div(logits, target), F.soft_margin_loss(logits, target), torch.distributions.Bernoulli(logits=logits).log_prob(target)
        torch.distributions.Categorical(logits=logits).log_prob(labels), torch.distributions.Normal(logits, 1).log_prob(target)
        torch.bucketize(logits, torch.arange(3.0)), logits.argmax(1), logits.unique(), logits.bernoulli(), torch.rot90(logits)

    assert count_macs(run).missing == frozenset()


def test_no_operation_is_in_two_lists() -> None:
    assert not MOVES & UNCOUNTED
    assert not FORMULAS.keys() & (MOVES | UNCOUNTED)
