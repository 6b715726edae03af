"""How long MGNet and a plain ResNet-18 take on a device in bfloat16, and how far that is from what the device allows.

The limits are measured in the same run: a large copy gives the bandwidth, a large product of matrices the arithmetic. No pass can be
faster than its convolutions and linear layers, one after the other: each must read its input and weights and write its output once, and
multiply; the slower of both counts. `share` is the sum of these times as a part of the measured time. Whatever else a pass does (glimpses,
normalisation, activations, waiting for the processor that starts the kernels) lowers it.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from glimpsezoo.core.feedforward import FeedForward
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import rollout
from glimpsezoo.evaluation.environment import channels_last, device_name
from glimpsezoo.specs import Task, load_string

SIDE, CLASSES, INPUTS = 224, 1000, 4
BATCHES = (1, 32, 256)
REPEATS, WARM = 50, 5
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {  # name -> the model, its settings' class, and the settings
    "mgnet": ("glimpsezoo_mgnet.model:MGNet", "glimpsezoo_mgnet.config:MGNetConfig", {"glimpses": 4, "downsample": "7/3"}),
    "timm:resnet18": ("glimpsezoo_timm.model:TimmModel", "glimpsezoo_timm.config:TimmConfig", {"architecture": "resnet18"}),
}
Pass = Callable[[Tensor], Tensor]  # images -> logits


@dataclass(frozen=True)
class Limits:
    """What the device reaches in a large copy and in a large product."""

    bytes_per_s: float
    """Bytes that are read and bytes that are written, together."""
    flop_per_s: float
    """Two per multiply-accumulate of bfloat16."""


def latencies(device: torch.device, *, compiled: bool, short: bool = False) -> Iterator[dict[str, Any]]:
    """Times of both models, as JSON values, again after every row that is added. short: tiny images, batches and matrices, once each.

    A way is how a pass is run: by `rollout`; as the bare phases; as these with a compiled backbone; either of these as a CUDA graph, at
    batch 1. Compiled ways come last, because compiling takes longer than all the rest.
    """
    side, batches, repeats = (64, (1, 2), 1) if short else (SIDE, BATCHES, REPEATS)
    limits = measured_limits(device, repeats, short=short)
    about = {"device": device_name(device), "torch": torch.__version__, "side": side, "precision": "bfloat16", **asdict(limits)}
    rows: list[dict[str, Any]] = []
    for fast in (False, True) if compiled else (False,):
        for name in MODELS:
            model = build(name, side, device, compiled=fast)
            for batch in batches:
                inputs = [torch.rand(batch, 3, side, side, device=device).to(memory_format=torch.channels_last) for _ in range(INPUTS)]
                least = 1000 * least_seconds(build(name, side, device), inputs[0], limits)
                for way, run in ways(model, inputs[0], compiled=fast).items():
                    low, median, high = (1000 * each for each in quartiles(run, inputs, repeats))
                    row = {"model": name, "batch": batch, "way": way, "ms": median, "quartiles_ms": [low, high]}
                    rows.append(row | {"limit_ms": least, "share": least / median, "images_per_s": 1000 * batch / median})
                    print(f"{name}, batch {batch}, {way}: {median:.3f} ms, {least / median:.1%} of the limit", flush=True)
                    yield {**about, "complete": False, "rows": rows}
    yield {**about, "complete": True, "rows": rows}


def build(name: str, side: int, device: torch.device, *, compiled: bool = False) -> GlimpseModel[Any]:
    """An untrained model, ready to be timed. The weights of its backbone are bfloat16, so that no pass converts them."""
    kind, schema, settings = MODELS[name]
    task = Task((side, side), 3, tuple(map(str, range(CLASSES))))
    model = load_string(kind)(load_string(schema).parse(settings, owner=name), task).to(device).eval()
    channels_last(model)
    for layer in layers_of(model.backbone):
        layer.to(torch.bfloat16)
    for method in ("forward", "forward_features") if compiled else ():  # MGNet calls the first, a feed-forward timm model the second
        setattr(model.backbone, method, torch.compile(getattr(model.backbone, method), dynamic=False))
    return model


def ways(model: GlimpseModel[Any], example: Tensor, *, compiled: bool) -> dict[str, Pass]:
    """The ways to run a pass over images like `example`, by name. compiled: whether the model's backbone is."""
    noise = Noise.of(0, torch.arange(len(example), device=example.device))
    bare = in_bfloat16(lambda images: bare_pass(model, images, noise))
    found = {"compiled": bare}
    if not compiled:
        found = {"rollout": in_bfloat16(lambda images: rollout(model, images, noise=noise).logits), "bare": bare}
    if example.device.type == "cuda" and len(example) == 1:
        found["compiled, CUDA graph" if compiled else "bare, CUDA graph"] = graphed(bare, example)
    return found


def in_bfloat16(run: Pass) -> Pass:
    """The pass with convolutions and products in bfloat16, without gradients."""

    def mixed(images: Tensor) -> Tensor:
        # A conversion that is kept from one pass to the next would be missing in a CUDA graph.
        with torch.no_grad(), torch.autocast(images.device.type, dtype=torch.bfloat16, cache_enabled=False):
            return run(images)

    return mixed


def bare_pass(model: GlimpseModel[Any], images: Tensor, noise: Noise) -> Tensor:
    """The logits [B, classes] after all steps, by the phases alone: what `rollout` computes for a model with one region per step.

    `rollout` asks after every step whether an image is finished, and a feed-forward model whether its region is the whole image. Both
    wait for the device, which a CUDA graph cannot.
    """
    if isinstance(model, FeedForward):
        return model.head(model.features(model.prepared(images)))
    state, decision = model.start(images, noise)
    for step in range(1, model.steps + 1):
        features = model.sense(images, state, decision.regions)
        state = replace(model.fuse(state, decision, features), step=step)
        if step < model.steps:
            decision = model.locate(state)
            assert decision is not None, "the model takes all its steps"
    return model.classify(state)


def graphed(run: Pass, example: Tensor) -> Pass:
    """The pass as a CUDA graph: its kernels are recorded once and started together."""
    images, stream = example.clone(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # a capture must be preceded by passes on another stream
        for _ in range(WARM):
            run(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = run(images)

    def replay(new: Tensor) -> Tensor:
        images.copy_(new)
        graph.replay()
        return logits

    return replay


def quartiles(run: Pass, inputs: Sequence[Tensor], repeats: int) -> list[float]:
    """Lower quartile, median and upper quartile of the seconds of a pass. The inputs take turns, each pass after the one before is done."""
    for _ in range(WARM):
        run(inputs[0])
    times = [seconds(run, inputs[k % len(inputs)]) for k in range(max(2, repeats))]
    return statistics.quantiles(times, n=4, method="inclusive")


def seconds(run: Callable[[Tensor], object], argument: Tensor) -> float:
    """How long a call takes on a device that was idle before: by CUDA events on a GPU."""
    if argument.device.type != "cuda":
        began = time.perf_counter()
        run(argument)
        return time.perf_counter() - began
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run(argument)
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / 1000


def measured_limits(device: torch.device, repeats: int, *, short: bool) -> Limits:
    """The medians of a copy of 2 GiB and of a product of two matrices of 8,192 x 8,192. short: much smaller ones."""
    size, side = (1 << 20, 256) if short else (1 << 31, 8192)
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    matrices = [torch.rand(side, side, device=device, dtype=torch.bfloat16) for _ in range(2)]
    copy = quartiles(target.copy_, [source], repeats)[1]
    product = quartiles(lambda left: left @ matrices[1], matrices[:1], repeats)[1]
    return Limits(bytes_per_s=2 * size / copy, flop_per_s=2 * side**3 / product)


def least_seconds(model: GlimpseModel[Any], images: Tensor, limits: Limits) -> float:
    """The time that the convolutions and linear layers of a pass need at the limits, in bfloat16."""
    total = 0.0

    def add(module: nn.Conv2d | nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        moved = 2 * (inputs[0].numel() + module.weight.numel() + output.numel())  # bytes: a bfloat16 has two
        macs = output.numel() * module.weight[0].numel()  # a number of the output is a product with one row of the weights
        total += max(moved / limits.bytes_per_s, 2 * macs / limits.flop_per_s)

    hooks = [layer.register_forward_hook(add) for layer in layers_of(model)]
    in_bfloat16(lambda images: rollout(model, images).logits)(images)
    for hook in hooks:
        hook.remove()
    return total


def layers_of(module: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """Its convolutions and linear layers."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
