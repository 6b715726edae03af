"""MACs of timm models of many families, counted by us and by fvcore, which traces with torch.jit and has its own formulas.

    pip install fvcore
    python benchmarks/timm_macs.py > timm_macs.md

fvcore has no formula for fused attention, so it counts timm's unfused attention. It has none for nn.LSTM either, so its MACs are added in
closed form. Other operations with products that it could not count are listed. fvcore also counts norms, pooling and interpolation; these
are subtracted, because our convention does not count them.
"""

import logging
import sys
import warnings

import timm
import torch
from timm.layers import set_fused_attn

from glimpsezoo.core.macs import count_macs
from glimpsezoo.measures.text import macs_text

MODELS = """
resnet18 resnext50_32x4d regnety_002 seresnet18 nfnet_l0 hrnet_w18_small dla34 densenet121 inception_v3 vgg11 gernet_s tresnet_m vovnet39a
selecsls42 cspresnet50 mobilenetv3_small_050 efficientnet_b0 ghostnet_100 repvit_m0_9 convnext_atto edgenext_xx_small focalnet_tiny_srf
poolformer_s12 mobilevit_xxs mobilevitv2_050 fastvit_t8 efficientformer_l1 levit_128s tiny_vit_5m_224 vit_tiny_patch16_224
deit_tiny_patch16_224 cait_xxs24_224 xcit_nano_12_p16_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 twins_pcpvt_small
volo_d1_224 coat_lite_tiny maxvit_rmlp_pico_rw_256 pit_ti_224 nest_tiny crossvit_tiny_240 visformer_tiny beit_base_patch16_224
eva02_tiny_patch14_224 hiera_tiny_224 davit_tiny mixer_s32_224 resmlp_12_224 gmlp_ti16_224 sequencer2d_s mambaout_femto lambda_resnet26t
botnet26t_256 halonet26t
"""
# Papers count these as zero, and so do we.
LEFT_OUT = "batch_norm layer_norm group_norm instance_norm upsample_nearest2d upsample_bilinear2d adaptive_avg_pool2d grid_sampler"


def fvcore_macs(model: torch.nn.Module, images: torch.Tensor) -> tuple[float, list[str]]:
    """fvcore's count of convolutions and products ("one fused multiply-add is one flop"), and the operations with products it lacks."""
    from fvcore.nn import FlopCountAnalysis  # not a dependency of the project

    analysis = FlopCountAnalysis(model, images).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counted = analysis.by_operator()
    left_out = sum(macs for name, macs in counted.items() if name in LEFT_OUT.split())
    unknown = [name for name in analysis.unsupported_ops() if any(part in name for part in ("gru", "attention", "mv", "fft"))]
    return analysis.total() - left_out + lstm_macs(model, images), unknown


def lstm_macs(model: torch.nn.Module, images: torch.Tensor) -> int:
    """4 H (I + H) per token and direction, for single-layer LSTMs: four gates of H units each read I inputs and the H previous outputs."""
    found = []

    def count(module: torch.nn.LSTM, inputs: tuple[torch.Tensor], _: object) -> None:
        directions = 2 if module.bidirectional else 1
        each = 4 * module.hidden_size * (module.input_size + module.hidden_size)
        found.append(inputs[0].shape[0] * inputs[0].shape[1] * directions * each)

    for module in model.modules():
        if isinstance(module, torch.nn.LSTM):
            assert module.num_layers == 1
            module.register_forward_hook(count)
    with torch.no_grad():
        model(images)
    return sum(found)


def main() -> None:
    """Print a Markdown table, sorted by the size of the difference."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = []
    for name in sys.argv[1:] or MODELS.split():
        size = timm.get_pretrained_cfg(name).input_size
        models = []
        for fused in (True, False):
            set_fused_attn(fused)
            models.append(timm.create_model(name).eval())
        images = torch.rand(1, *size)
        ours = count_macs(lambda models=models, images=images: models[0](images))
        theirs, unknown = fvcore_macs(models[1], images)
        rows.append((ours.macs - round(theirs), name, size[-1], ours, theirs, unknown))
        print(f"{name} {rows[-1][0]:+,}", file=sys.stderr, flush=True)
    print("| model | px | ours | fvcore | difference in MACs | no formula in fvcore | in ours |", "| --- " * 7 + "|", sep="\n")
    for difference, name, px, ours, theirs, unknown in sorted(rows, key=lambda row: -abs(row[0])):
        known = f"| {name} | {px} | {macs_text(ours.macs)} | {macs_text(theirs)} | {difference:+,}"
        print(f"{known} | {', '.join(unknown)} | {', '.join(sorted(ours.missing))} |")


if __name__ == "__main__":
    main()
