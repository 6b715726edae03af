"""`trace`: show where a model looks."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glimpsezoo.commands import names, options
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.untrusted import is_number

if TYPE_CHECKING:
    from glimpsezoo.reports.pictures.traced import Traced
    from glimpsezoo.workflows.tracing import DrawnTraces

MOST = 1_000  # images of a range of --index


@click.command()
@click.argument("model", shell_complete=names.models)
@click.argument("more", nargs=-1, metavar="")
@options.together(
    options.data,
    options.data_dir,
    click.option("--split", default="test", show_default=True, metavar="NAME", help="The split whose images --index numbers."),
    click.option("--index", multiple=True, metavar="I...", help="Images of the data set by index, from 0.  [default: 0]"),
    click.option("--image", multiple=True, metavar="FILE...", help="Image files instead of images of the data set."),
    click.option(
        "--under",
        metavar="CONDITION",
        shell_complete=names.conditions,
        help="Also show it under a corruption (fog:3) or an attack (pgd:4/255).",
    ),
    options.device,
    options.seed,
    options.settings,
    options.checkpoint,
    click.option("--html", is_flag=True, help="Write a single HTML page to flip through."),
    click.option("-o", "--output", metavar="FILE", help="File for the picture: .png, .svg, .gif or .html.  [default: MODEL-I.png]"),
    options.force,
    options.as_json,
    options.debug,
)
def trace(model: str, more: tuple[str, ...], **given: Any) -> None:
    """Draw where MODEL looks, and what it predicts after each step.

    The picture shows the image with numbered regions, the prediction and its confidence at every step (right or wrong if the label is
    known), the step and the reason of the exit, and the glimpses as a tree. A GIF shows one step after the other. --index and --image take
    several values.

    \b
    Examples:
      glimpsezoo trace mgnet --index 3 7 12
      glimpsezoo trace pyramid-m3 --index 5 --under fog:3 -o fog.svg
      glimpsezoo trace mgnet --index 3 --under pgd:4/255 -o attack.gif
      glimpsezoo trace mgnet --index 3 --set anytime.threshold=0.9 -o early.png
      glimpsezoo trace mgnet --image seven.png four.png --html
    """
    from glimpsezoo.zoo.early import check_names

    given["checkpoint"] = options.as_card(given["checkpoint"], [model], given["data"])
    check_names([model], data=given["data"], checkpoint=given["checkpoint"], sets=given["sets"], under=given["under"])
    from glimpsezoo.workflows.tracing import TraceRequest, draw_traces

    indices, files = list(given["index"]), list(given["image"])
    if more and bool(indices) == bool(files):
        raise GlimpseZooError(f"expected one model, got {model} {' '.join(more)}: name images by --index or --image")
    (indices if indices else files).extend(more)
    request = TraceRequest(
        model=model,
        device=options.pick_device(given["device"]),
        data=given["data"],
        data_dir=given["data_dir"],
        split=given["split"],
        indices=_numbers(indices),
        files=tuple(map(Path, files)),
        under=given["under"],
        sets=tuple(given["sets"]),
        checkpoint=given["checkpoint"],
        seed=given["seed"],
        html=given["html"],
        output=Path(given["output"]) if given["output"] else None,
        force=given["force"],
    )
    _print(draw_traces(request), as_json=given["as_json"])


def _print(drawn: "DrawnTraces", *, as_json: bool) -> None:
    """The traces in words or as JSON; notes, and where the picture is, on standard error."""
    from glimpsezoo.reports.pictures.layout import in_words

    if drawn.note:
        options.say(drawn.note)
    if as_json:
        options.tell(json.dumps([_values(traced) for row in drawn.rows for traced in row], indent=2))
    else:
        for row in drawn.rows:
            for traced in row:
                options.tell(in_words(traced))
    for note in dict.fromkeys(traced.note for row in drawn.rows for traced in row if traced.note):
        options.say(note)
    if drawn.departure:
        options.say(drawn.departure)
    options.say(f"picture in {drawn.path}")


def _numbers(texts: list[str]) -> tuple[int, ...]:
    """`3`, `3,7` and `3-7`."""
    found: list[int] = []
    for text in (part for given in texts for part in given.split(",")):
        first, dash, last = text.strip().partition("-")
        if not is_number(first) or (dash and not (is_number(last) and int(first) <= int(last))):
            raise GlimpseZooError(f"--index expects numbers from 0 (3, 3,7 or 3-7), got {text!r}")
        if dash and int(last) - int(first) >= MOST:
            raise GlimpseZooError(f"--index expects at most {MOST:,} images, got more in {text!r}: name fewer")
        found += range(int(first), int(last) + 1) if dash else [int(first)]
    return tuple(found)


def _values(traced: "Traced") -> dict[str, Any]:
    """A trace as JSON. Regions are in shares of the image's sides, from the top left corner."""
    looks = [
        {
            "step": look.step,
            "prediction": look.prediction,
            "confidence": look.confidence,
            "right": look.right,
            "regions": [
                {"number": g.number, "parent": g.parent or None, "left": g.left, "top": g.top, "width": g.width, "height": g.height}
                for g in look.glimpses
            ],
        }
        for look in traced.looks
    ]
    names = ("model", "image", "condition", "label", "steps", "rule", "macs")
    return {**{name: getattr(traced, name) for name in names}, "exit": traced.exit, "looks": looks}
