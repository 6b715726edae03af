"""How many core-hours ImageNet-C takes: 15 corruptions at 5 severities and the clean images, 50,000 each, for each of eight models.

    python benchmarks/scale.py                   # measures, some minutes of one core, and writes the table of docs/scale.md
    python benchmarks/scale.py --model gfnet     # measures one model again
    python benchmarks/scale.py --draw            # writes the table from benchmarks/scale.json
    python benchmarks/scale.py --device cuda     # the same in hours of a GPU

A run does three things with an image, and each is measured on its own, as units do it: it decodes it (JPEG files of 500 x 375 px, resized
to 224 px), corrupts it (each of the 15 corruptions at severity 3), and the model looks at it (with untrained weights, as costs do not
depend on them). On a CPU, the time is that of one thread's core, not of the clock, so that other processes on the machine hardly matter.
"""

import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import glimpsezoo as gz
from glimpsezoo.conditions.corruptions.catalogue import BENCHMARK
from glimpsezoo.conditions.corruptions.condition import Corruption
from glimpsezoo.data.limited import Held, limited
from glimpsezoo.data.loading import batches
from glimpsezoo.evaluation.environment import channels_last
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import EvaluationConfig, run_job
from glimpsezoo.measures.text import macs_text

ROOT = Path(__file__).parent.parent
FIGURES, PAGE = ROOT / "benchmarks" / "scale.json", ROOT / "docs" / "scale.md"
SIDE, SEVERITY, BATCH = 224, 3, 32
IMAGES, SEVERITIES = 50_000, 5  # of ImageNet-C, per condition
CONDITIONS = len(BENCHMARK) * SEVERITIES
DECODE, CORRUPT = "decode", "corrupt"  # in scale.json, beside the models
MODELS: dict[str, dict[str, Any]] = {
    "timm:resnet18": {},
    "timm:resnet50": {},
    "timm:deit_tiny_patch16_224": {},
    "mgnet": {"backbone": "resnet18", "downsample": SIDE / 96, "glimpses": 3},
    "gfnet": {},
    "adaptivenn": {},
    "pyramid-imagenet-m1": {"policy": "centre"},
    "ranzato": {},
}


@dataclass(frozen=True)
class Figure:
    """Seconds per image of one part of the work."""

    of: str
    """'decode', 'corrupt' (the mean over the corruptions), or a model."""
    device: str
    """'cpu', for seconds of a core, or 'cuda', for seconds of the clock."""
    seconds: float
    macs: float | None = None
    """Per image, of a model."""


def photographs(folder: Path, count: int) -> Path:
    """JPEG files as ImageNet's are on average: parts of two photographs, 500 x 375 px, in two classes."""
    for k in range(count):
        name = ("china.jpg", "flower.jpg")[k % 2]
        pixels = load_sample_image(name)[k % 50 : k % 50 + 375, 2 * (k % 70) : 2 * (k % 70) + 500]
        place = folder / "test" / name.removesuffix(".jpg")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{k:04}.jpg", quality=96)
    return folder


def clock(device: torch.device) -> float:
    """Seconds of this process' cores, or of the clock once a GPU has nothing left to do."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(work: Callable[[], object], device: torch.device, turns: int) -> float:
    """The shortest of some turns, after one that warms up."""
    times = []
    for _ in range(1 + turns):
        began = clock(device)
        work()
        times.append(clock(device) - began)
    return min(times[1:])


def decoding(data: gz.ImageData, turns: int) -> float:
    """Seconds per image to read, decode and resize."""
    return seconds_of(lambda: list(batches(data, 0, len(data), BATCH, 0)), torch.device("cpu"), turns) / len(data)


def corrupting(images: torch.Tensor, turns: int) -> float:
    """Seconds per image of a corruption, over all 15 of ImageNet-C."""
    ids, labels, spent = torch.arange(len(images)), torch.zeros(len(images), dtype=torch.long), []
    unread = gz.create_model("ranzato", task=gz.Task((SIDE, SIDE), 3, ("a", "b")))  # attacks read the model, corruptions do not
    for spec in BENCHMARK:
        corruption = Corruption(spec, SEVERITY, (SIDE, SIDE))
        spent.append(seconds_of(lambda c=corruption: c.apply(images, labels, ids, unread), images.device, turns))
    return float(np.mean(spent)) / len(images)


def looking(name: str, data: gz.ImageData, device: torch.device, turns: int) -> Figure:
    """Seconds per image of a model, as a unit runs it, with the costs that a unit counts: on images that are decoded already."""
    task = gz.Task((SIDE, SIDE), 3, data.task.classes)
    model = gz.create_model(name, task=task, **MODELS[name]).to(device).eval()
    channels_last(model)
    config = EvaluationConfig(batch_size=BATCH, device=device)
    found = []
    best = seconds_of(lambda: found.append(run_job(Job(model, name, data), config)), device, turns)
    return Figure(name, device.type, best / len(data), float(found[0].rows.macs.mean()))


def measured(names: list[str], device: torch.device, count: int, turns: int) -> Iterator[Figure]:
    """Each figure as soon as it is measured."""
    with tempfile.TemporaryDirectory() as folder:
        place = photographs(Path(folder), count)
        data = gz.open_data(f"folder:{place}", size=SIDE)
        yield Figure(DECODE, "cpu", decoding(data, turns))
        held = Held(limited(data, BATCH))
        images = torch.stack([held[k].image for k in range(len(held))])
        yield Figure(CORRUPT, "cpu", corrupting(images, turns))
        for name in names:
            yield looking(name, held, device, turns)


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {"machine": {}, "figures": []}


def hours(figures: list[Figure], model: Figure) -> tuple[float, dict[str, float]]:
    """Hours of ImageNet-C for one model, and the share of each part in them."""
    known = {each.of: each.seconds for each in figures}
    conditions = CONDITIONS + 1  # with the clean images
    seconds = {"decoding": conditions * known[DECODE], "corrupting": CONDITIONS * known[CORRUPT], "the model": conditions * model.seconds}
    whole = sum(seconds.values())
    return IMAGES * whole / 3600, {part: each / whole for part, each in seconds.items()}


def table(figures: list[Figure], device: str) -> str:
    """A row per model, and the sum."""
    known = {each.of: each for each in figures if each.device == "cpu"}
    unit = "core-hours" if device == "cpu" else "GPU-hours of the model"
    rows, total = [], 0.0
    for each in figures:
        if each.of in MODELS and each.device == device and {DECODE, CORRUPT} <= set(known):
            whole, shares = hours(figures, each)
            own = whole if device == "cpu" else (CONDITIONS + 1) * IMAGES * each.seconds / 3600
            bound = max(shares, key=lambda part: shares[part])
            total += own
            macs = "" if each.macs is None else macs_text(each.macs)
            rows.append((each.of, macs, f"{1000 * each.seconds:.1f}", f"{own:,.0f}", f"{bound} ({100 * shares[bound]:.0f} %)"))
    rows.append((f"all {len(rows)}", "", "", f"{total:,.0f}", ""))
    heads = ("model", "MACs", "ms per image", unit, "bounded by")
    lines = [heads, ("---", "---:", "---:", "---:", "---"), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(page: Path, content: dict[str, Any]) -> None:
    """Write the tables and the machine into the page."""
    figures, text = [Figure(**each) for each in content["figures"]], page.read_text(encoding="utf-8")
    known = {each.of: each.seconds for each in figures}
    for device, machine in content["machine"].items():
        text = _filled(text, f"machine-{device}", machine)
        text = _filled(text, f"hours-{device}", f"\n{table(figures, device)}\n")
    for part in (DECODE, CORRUPT):
        if part in known:
            text = _filled(text, part, f"{1000 * known[part]:.1f} ms")
    page.write_text(text, encoding="utf-8")


def _filled(text: str, name: str, content: str) -> str:
    """The text with `content` between the comments `name` and `/name`."""
    return re.sub(rf"(<!-- {name} -->).*?(<!-- /{name} -->)", lambda found: found[1] + content + found[2], text, flags=re.DOTALL)


def _machine(device: torch.device) -> str:
    version = torch.__version__.partition("+")[0]
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {version}"
    return f"one thread of a machine with {platform.machine()}, torch {version}"


@click.command()
@click.option("--model", "models", type=click.Choice(list(MODELS)), multiple=True, help="Measure only this model.")
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]), help="Where the models run.")
@click.option("--draw", "only_draw", is_flag=True, help="Measure nothing.")
@click.option("--figures", type=click.Path(path_type=Path), default=FIGURES, help="The file of the figures.")
@click.option("--page", type=click.Path(path_type=Path), default=PAGE, help="The page that has the table.")
def main(*, models: tuple[str, ...], device: str, only_draw: bool, figures: Path, page: Path) -> None:
    """Measure what ImageNet-C costs, and write the table."""
    torch.set_num_threads(1)
    content, place = read(figures), torch.device(device)
    short = "GLIMPSEZOO_SHORT" in os.environ  # to check that it runs
    for figure in () if only_draw else measured(list(models or MODELS), place, 4 if short else 64, 1 if short else 3):
        others = [each for each in content["figures"] if (each["of"], each["device"]) != (figure.of, figure.device)]
        content = {"machine": {**content["machine"], device: _machine(place)}, "figures": [*others, asdict(figure)]}
        order = [DECODE, CORRUPT, *MODELS]
        content["figures"].sort(key=lambda each: (each["device"], order.index(each["of"])))
        figures.write_text(json.dumps(content, indent=1) + "\n")
        print(f"{figure.of}: {1000 * figure.seconds:.2f} ms per image", file=sys.stderr, flush=True)
    draw(page, content)


if __name__ == "__main__":
    main()
