"""The MACs of operations for which torch has no formula, and the operations that are known to contain no products.

An operation in neither list may cost any number of MACs: `macs.py` then reports a total as "at least".
Operations are identified by name: `mv` is `torch.ops.aten.mv`; those of other libraries keep their namespace, `torchvision::nms`.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

Formula = Callable[..., int]  # takes the operation's result and its arguments


def operation(func: OpOverload) -> str:
    """The name of an operation; the in-place `add_` counts as `add`."""
    name = func.overloadpacket.__name__.removesuffix("_")
    return name if func.namespace == "aten" else f"{func.namespace}::{name}"


def _attention(out: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """query: [..., L, E]. key: [..., S, E]. value: [..., S, V]. Both products are counted in full: masked positions count too."""
    return query.numel() * key.shape[-2] + query[..., 0].numel() * key.shape[-2] * value.shape[-1]


def _recurrent(inputs: Tensor, weights: Sequence[Tensor]) -> int:
    """Every token is multiplied by every matrix once, in all layers, directions and the projection. inputs: [..., tokens, features]."""
    return inputs[..., 0].numel() * sum(weight.numel() for weight in weights if weight.ndim == 2)


def _trilinear(out: Any, one: Tensor, two: Tensor, three: Tensor, first: Any, second: Any, third: Any, summed: Any, *_: Any) -> int:
    """`bilinear` from left to right: a product, summed over the dimensions that the third factor lacks, then a product with the third."""
    shapes = [_with_ones(tensor.shape, added) for tensor, added in ((one, first), (two, second), (three, third))]
    pair = torch.broadcast_shapes(*shapes[:2])
    left = [1 if dim in summed and dim in third else size for dim, size in enumerate(pair)]
    return prod(pair) + prod(torch.broadcast_shapes(left, shapes[2]))


def _with_ones(shape: Sequence[int], dims: Sequence[int]) -> list[int]:
    """The shape after `unsqueeze` at these dimensions."""
    left = iter(shape)
    return [1 if dim in dims else next(left) for dim in range(len(shape) + len(dims))]


def _weighted_bag(out: Any, weight: Tensor, indices: Tensor, *rest: Any, per_sample_weights: Tensor | None = None, **_: Any) -> int:
    """A sum of embeddings costs nothing, as all sums; a weighted sum is a product."""
    weights = rest[4] if len(rest) > 4 else per_sample_weights  # offsets, scale_grad_by_freq, mode, sparse, per_sample_weights
    return 0 if weights is None else indices.numel() * weight.shape[1]


def _packed_convolution(
    out: Tensor, inputs: Tensor, weight: Tensor, bias: Any, padding: Any, stride: Any, dilation: Any, groups: int, *_: Any
) -> int:
    """Of `core/inference.py`. The weight's shape is that of a convolution, whatever its order: [O, I / groups, h, w]."""
    return out.numel() * (inputs.shape[1] // groups) * prod(weight.shape[-2:])


FORMULAS: dict[str, Formula] = {
    "mv": lambda out, matrix, vector: matrix.numel(),
    "addmv": lambda out, added, matrix, vector, **_: matrix.numel(),
    "dot": lambda out, a, b: a.numel(),
    "vdot": lambda out, a, b: a.numel(),
    "addr": lambda out, added, a, b, **_: a.numel() * b.numel(),
    "addbmm": lambda out, added, a, b, **_: a.numel() * b.shape[2],  # [B, n, m] @ [B, m, p]
    "_addmm_activation": lambda out, added, a, b, **_: a.numel() * b.shape[1],
    "_int_mm": lambda out, a, b: a.numel() * b.shape[1],
    "_trilinear": _trilinear,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_scaled_dot_product_attention_math_for_mps": _attention,
    "mkldnn_rnn_layer": lambda out, inputs, w_input, w_state, *_: _recurrent(inputs, (w_input, w_state)),  # one layer, one direction
    "_cudnn_rnn": lambda out, inputs, weights, *_: _recurrent(inputs, weights),
    "miopen_rnn": lambda out, inputs, weights, *_: _recurrent(inputs, weights),
    "_embedding_bag": _weighted_bag,
    "_embedding_bag_forward_only": _weighted_bag,
    "mkldnn::_convolution_pointwise": _packed_convolution,
    "torchvision::deform_conv2d": lambda out, inputs, weight, *_: out.numel() * weight[0].numel(),  # weight: [O, I / groups, h, w]
}

# Operations that move or create floating-point values without arithmetic, so that they need not be listed as uncounted.
_MOVES = (
    "_chunk_cat _coalesce _cudnn_rnn_flatten_weight _efficientzerotensor _index_put_impl _lazy_clone _new_zeros_with_same_feature_meta "
    "_pack_padded_sequence _pin_memory _reorder_convolution_weight _reshape_alias_copy _stack _to_copy _to_dense _unique _unique2 "
    "_unsafe_index _unsafe_index_put _unsafe_masked_index _unsafe_view arange as_strided_scatter block_diag cat channel_shuffle clone "
    "col2im constant_pad_nd contiguous copy detach diag_embed diagonal_scatter embedding empty empty_like empty_permuted empty_strided "
    "eye fill fill_diagonal flip from_file full full_like gather im2col imag index index_copy index_fill index_put index_select lift "
    "lift_fresh linspace masked_fill masked_scatter masked_select native_channel_shuffle new_empty new_empty_strided new_full new_ones "
    "new_zeros nonzero ones ones_like pad pixel_shuffle pixel_unshuffle put real reflection_pad1d reflection_pad2d reflection_pad3d "
    "repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d resize resize_as resolve_conj resolve_neg roll rot90 "
    "scalar_tensor scatter select_scatter set slice_scatter sort stack take to_padded_tensor topk tril triu unfold_copy "
    "unique_consecutive unique_dim unsafe_chunk unsafe_split unsafe_split_with_sizes view_as_complex_copy where zero zeros zeros_like"
)

# Arithmetic that counts as zero MACs, as in papers: norms, softmax, pooling, interpolation, sums, gates, draws. Operations on single
# values have torch's tag `pointwise` and are not listed.
_UNCOUNTED = {
    "norms": (
        "_batch_norm_no_update _batch_norm_with_update _batch_norm_with_update_functional _fused_rms_norm _native_batch_norm_legit "
        "_native_batch_norm_legit_functional _native_batch_norm_legit_no_training _weight_norm_interface batch_norm batch_norm_elemt "
        "batch_norm_gather_stats batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats cudnn_batch_norm "
        "embedding_renorm linalg_vector_norm miopen_batch_norm native_batch_norm native_group_norm native_layer_norm native_norm norm "
        "renorm"
    ),
    "softmax": (
        "_log_softmax _logcumsumexp _masked_softmax _safe_softmax _softmax log_sigmoid_forward log_softmax logcumsumexp logsumexp softmax"
    ),
    "pooling": (
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d "
        "adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d fractional_max_pool2d fractional_max_pool3d max_pool1d max_pool2d "
        "max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d mkldnn_max_pool2d mkldnn_max_pool3d"
    ),
    "interpolation": (
        "_grid_sampler_2d_cpu_fallback _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d "
        "_upsample_nearest_exact2d _upsample_nearest_exact3d affine_grid_generator cudnn_affine_grid_generator cudnn_grid_sampler "
        "grid_sampler_2d grid_sampler_3d torchvision::nms torchvision::ps_roi_align torchvision::ps_roi_pool torchvision::roi_align "
        "torchvision::roi_pool upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d "
        "upsample_nearest3d upsample_trilinear3d"
    ),
    "sums and other reductions": (
        "_aminmax _cummax_helper _cummin_helper _segment_reduce _unsafe_masked_index_put_accumulate all amax amin aminmax any argmax "
        "argmin bincount bucketize count_nonzero cummax cummin cumprod cumsum diff dist histc histogram index_add index_reduce isin "
        "kthvalue max mean median min mode nanmedian nansum prod scatter_add scatter_reduce searchsorted segment_reduce std std_mean "
        "sum trace var var_mean"
    ),
    "gates of a recurrent cell, after its matrix products": ("_thnn_fused_gru_cell _thnn_fused_lstm_cell"),
    "on single values, without the tag (celu, leaky_relu and selu have it after torch 2.6)": (
        "_add_relu _conj_physical _fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_tensor_affine "
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fused_moving_avg_obs_fq_helper "
        "_fused_moving_avg_obs_fq_helper_functional _masked_scale _prelu_kernel _transform_bias_rescale_qkv abs celu complex copysign "
        "dequantize elu eq fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask floor_divide ge gelu glu "
        "gt hardsigmoid hardswish hardtanh heaviside int_repr le leaky_relu linalg_cross lt mish ne polar quantize_per_channel "
        "quantize_per_tensor quantize_per_tensor_dynamic rrelu_with_noise rrelu_with_noise_functional selu silu softplus threshold"
    ),
    "losses of predictions": (
        "_ctc_loss _cudnn_ctc_loss binary_cross_entropy binary_cross_entropy_with_logits huber_loss mse_loss multi_margin_loss "
        "multilabel_margin_loss_forward nll_loss2d_forward nll_loss_forward smooth_l1_loss soft_margin_loss"
    ),
    "draws": (
        "_fused_dropout _sample_dirichlet _standard_gamma bernoulli binomial cauchy exponential geometric log_normal multinomial "
        "native_dropout normal normal_functional poisson rand rand_like randint randint_like randn randn_like random randperm uniform"
    ),
}
MOVES = frozenset(_MOVES.split())
UNCOUNTED = frozenset(" ".join(_UNCOUNTED.values()).split())


def moves(func: OpOverload) -> bool:
    """Whether an operation computes no values: views, copies, indices."""
    return func.is_view or torch.Tag.inplace_view in func.tags or operation(func) in MOVES


def holds_no_products(func: OpOverload) -> bool:
    """Whether an operation is known to contain no products. False means that it is unknown."""
    return torch.Tag.pointwise in func.tags or operation(func) in UNCOUNTED
