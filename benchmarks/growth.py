"""How time and memory of one pass grow with the size of the images, the looks, the batch and the classes.

    python benchmarks/growth.py                  # measures every point, about ten minutes, and draws docs/growth/ and docs/growth.md
    python benchmarks/growth.py --axis size      # measures only this axis; the points of the others stay as they are
    python benchmarks/growth.py --draw           # draws what benchmarks/growth.json has

One axis changes at a time, from the same middle. Whatever the size of the images, a glimpse has the same number of pixels, so a model's
MACs do not change with it (tests/test_growth.py): what still grows is not the network. Weights are untrained, because costs do not depend
on them. Each point is measured in a process of its own. Only Linux tells what the memory of a single pass is.
"""

import json
import multiprocessing
import os
import platform
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

import glimpsezoo as gz
from glimpsezoo.evaluation.environment import channels_last
from glimpsezoo.measures.shown import Axis, Line, Point
from glimpsezoo.measures.stopwatch import peak_memory, seconds_of
from glimpsezoo.reports.pictures.scene import Scene, beside
from glimpsezoo.reports.pictures.svg import svg_file
from glimpsezoo.reports.plots import plot, with_legend

ROOT = Path(__file__).parent.parent
POINTS = ROOT / "benchmarks" / "growth.json"
PAGE = ROOT / "docs" / "growth.md"
MODELS = ("mgnet", "ranzato", "pyramid-imagenet-m1", "timm:resnet18")
GLIMPSE = 96  # px: the side of MGNet's glimpses
LEAST = 0.1  # MiB: what is shown of memory
SECONDS, FEWEST, MOST = 2.0, 2, 15  # passes are repeated for this long, but at least and at most so often


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a pass costs where, and what it costs there. As it stands in growth.json."""

    axis: str
    """What changes: 'size', 'looks', 'batch' or 'classes'."""
    model: str
    size: int = 256
    """Side of the square images in px."""
    looks: int = 4
    """Steps of the model; a feed-forward network always takes one."""
    batch: int = 4
    """Images at once."""
    classes: int = 100
    ms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Lower quartile, median and upper quartile of a pass in ms."""
    mib: float = 0.0
    """The most memory that a pass takes in addition to the weights and the images, in MiB."""

    @property
    def at(self) -> int:
        """The place on its axis."""
        return getattr(self, self.axis)


AXES = {
    "size": ("image size in px", (64, 128, 256, 512, 1024, 1792, 2048)),
    "looks": ("looks", (1, 2, 4, 8)),
    "batch": ("images per batch", (1, 4, 16, 64)),
    "classes": ("classes", (10, 100, 1000, 10000)),
}


def places(axis: str, models: Iterable[str] = MODELS) -> list[Cost]:
    """Where the cost is measured along an axis, by model."""
    wanted = [replace(Cost(axis=axis, model=model), **{axis: at}) for model in models for at in AXES[axis][1]]
    return [place for place in wanted if place.looks in _takes(place)]


def _takes(place: Cost) -> range:
    """The numbers of looks that a model can take at a place."""
    if place.model == "ranzato":
        return range(2, 100)  # the low-resolution look and at least one glimpse
    if place.model.startswith("pyramid"):  # a look is a level, and every level doubles the image: no further than the image itself
        return range(1, (place.size // 32).bit_length() + 1) if place.axis == "looks" else range(1, 100)
    return range(1, 100) if place.model == "mgnet" or place.axis != "looks" else range(1, 2)


def model_at(place: Cost) -> gz.GlimpseModel[Any]:
    """The untrained model for the images, looks and classes of a place."""
    settings: dict[str, dict[str, Any]] = {
        "mgnet": {"backbone": "resnet18", "downsample": max(1, place.size / GLIMPSE), "glimpses": place.looks},
        "ranzato": {"glimpses": place.looks - 1},
        "pyramid-imagenet-m1": {"levels": place.looks, "policy": "centre"},  # one cell per node, for which no weight has to be trained
    }
    task = gz.Task((place.size, place.size), 3, tuple(map(str, range(place.classes))))
    model = gz.create_model(place.model, task=task, **settings.get(place.model, {})).eval()
    channels_last(model)
    return model


def measured(place: Cost, seconds: float = SECONDS) -> Cost:
    """The place with the cost of a pass there, run as evaluations run it."""
    model, times = model_at(place), []

    def run() -> Callable[[], object]:
        """A pass over new images."""
        images = torch.rand(place.batch, 3, place.size, place.size)
        return lambda: gz.rollout(model, images)

    with gz.inference(model):
        seconds_of(run(), model.device)  # the first pass prepares what the others reuse
        while len(times) < FEWEST or (sum(times) < seconds and len(times) < MOST):
            times.append(seconds_of(run(), model.device))
        memory = peak_memory(run(), model.device)
    assert memory is not None, "Linux tells it"
    low, median, high = (round(1000 * time, 2) for time in statistics.quantiles(times, n=4, method="inclusive"))
    return replace(place, ms=(low, median, high), mib=round(memory / 2**20, 1))


def merged(old: Iterable[Cost], new: Iterable[Cost]) -> list[Cost]:
    """All costs, the new ones in place of old ones of the same axis, model and place, in the order of the axes and models."""
    known = {(cost.axis, cost.model, cost.at): cost for cost in (*old, *new)}
    return [known[key] for axis in AXES for place in places(axis) if (key := (place.axis, place.model, place.at)) in known]


def read(file: Path) -> tuple[str, list[Cost]]:
    """The machine, and the costs that were measured on it; nothing if the file does not exist."""
    if not file.exists():
        return "", []
    content = json.loads(file.read_text())
    return content["machine"], [Cost(**{**cost, "ms": tuple(cost["ms"])}) for cost in content["costs"]]


def write(file: Path, machine: str, costs: Iterable[Cost]) -> None:
    lines = ",\n".join(json.dumps(asdict(cost)) for cost in costs)
    file.write_text(f'{{"machine": {json.dumps(machine)}, "costs": [\n{lines}\n]}}\n')


def picture(axis: str, costs: Iterable[Cost]) -> Scene:
    """Time and memory along an axis, side by side, with a line per model."""
    across = Axis(AXES[axis][0], logarithmic=True)
    drawn = []
    for what, label in (("time", "ms"), ("memory", "MiB")):
        lines = []
        for k, model in enumerate(MODELS):
            mine = [cost for cost in costs if (cost.axis, cost.model) == (axis, model)]
            points = [Point(c.at, c.ms[1], c.ms[0], c.ms[2]) if what == "time" else Point(c.at, max(c.mib, LEAST)) for c in mine]
            lines += [Line(model, k, tuple(points))] if points else []
        drawn.append(with_legend(plot(f"The {what} of a pass against the {AXES[axis][0]}", lines, across, Axis(label, True)), lines))
    return beside(drawn)


def table(axis: str, costs: Iterable[Cost]) -> str:
    """The same as a Markdown table; its last row says how many times the last place costs what the first does."""
    found = {(cost.model, cost.at): cost for cost in costs if cost.axis == axis}
    ats = [at for at in AXES[axis][1] if any(there == at for _, there in found)]
    rows = [[f"{at:,}", *(_cell(found.get((model, at))) for model in MODELS)] for at in ats]
    growth = [_growth(found.get((model, ats[0])), found.get((model, ats[-1]))) for model in MODELS]
    lines = [[AXES[axis][0], *MODELS], ["---:"] * (1 + len(MODELS)), *rows, [f"{_number(ats[-1] / ats[0])} x", *growth]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cost: Cost | None) -> str:
    return f"{_number(cost.ms[1])} ms, {_number(cost.mib)} MiB" if cost else ""


def _growth(first: Cost | None, last: Cost | None) -> str:
    return f"{_number(last.ms[1] / first.ms[1])} x, {_number(last.mib / max(first.mib, LEAST))} x" if first and last else ""


def _number(value: float) -> str:
    """With two digits at least, and never in powers of ten."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def draw(page: Path, machine: str, costs: list[Cost]) -> None:
    """Write the pictures beside the page, and the machine and the tables into it."""
    folder, text = page.with_suffix(""), page.read_text(encoding="utf-8")
    folder.mkdir(exist_ok=True)
    for axis in {cost.axis: None for cost in costs}:
        (folder / f"{axis}.svg").write_text(svg_file(picture(axis, costs)), encoding="utf-8")
        text = _filled(text, axis, f"\n{table(axis, costs)}\n")
    page.write_text(_filled(text, "machine", machine), encoding="utf-8")


def _filled(text: str, name: str, content: str) -> str:
    """The text with `content` between the comments `name` and `/name`."""
    return re.sub(rf"(<!-- {name} -->).*?(<!-- /{name} -->)", lambda found: found[1] + content + found[2], text, flags=re.DOTALL)


def _machine() -> str:
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' * (threads > 1)} of a machine with {platform.machine()}, torch {torch.__version__.partition('+')[0]}"


def _short(place: Cost) -> Cost:
    """A place that costs little, to check that it runs."""
    few = {"size": 64, "looks": 2, "batch": 1, "classes": 10}
    return replace(place, **{key: value for key, value in few.items() if key != place.axis})


@click.command()
@click.option("--axis", "axes", type=click.Choice(list(AXES)), multiple=True, help="Measure only along this axis.")
@click.option("--model", "models", type=click.Choice(MODELS), multiple=True, help="Measure only this model.")
@click.option("--draw", "only_draw", is_flag=True, help="Measure nothing.")
@click.option("--points", type=click.Path(path_type=Path), default=POINTS, help="The file of the points.")
@click.option("--page", type=click.Path(path_type=Path), default=PAGE, help="The page that is written, with the pictures beside it.")
def main(*, axes: tuple[str, ...], models: tuple[str, ...], only_draw: bool, points: Path, page: Path) -> None:
    """Measure how the cost of a pass grows, and draw it."""
    machine, costs = read(points)
    wanted = [] if only_draw else [place for axis in axes or AXES for place in places(axis, models or MODELS)]
    if "GLIMPSEZOO_SHORT" in os.environ:  # to check that it runs
        wanted = [_short(place) for place in wanted if place.at <= AXES[place.axis][1][1]]
        found = map(partial(measured, seconds=0), wanted)
    else:  # a process for each point, because what a process measured before changes what is measured next
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
        found = pool.map(measured, wanted)
    for cost in found:
        costs, machine = merged(costs, [cost]), _machine()
        write(points, machine, costs)
        print(f"{cost.axis} {cost.at}, {cost.model}: {cost.ms[1]:.4g} ms, {cost.mib:.4g} MiB", file=sys.stderr, flush=True)
    draw(page, machine, costs)


if __name__ == "__main__":
    main()
