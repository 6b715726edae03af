"""A page of traces to flip through, image by image and step by step. Without JavaScript, it shows all traces in one column."""

from collections.abc import Sequence

from glimpsezoo.reports.html import Html, element, join, page, scrolling
from glimpsezoo.reports.pictures.layout import panel
from glimpsezoo.reports.pictures.svg import svg_part
from glimpsezoo.reports.pictures.traced import Traced
from glimpsezoo.reports.templates import source

SMALLEST = 0.9  # smallest scale of a trace: below it, text is not readable, so a narrow screen scrolls


def flip_page(rows: Sequence[Sequence[Traced]]) -> str:
    """The page: one slide per image, with its conditions side by side."""
    models = ", ".join(dict.fromkeys(traced.model for row in rows for traced in row))
    slides = [_slide(number, row) for number, row in enumerate(rows, start=1)]
    steps = max(traced.looks[-1].step for row in rows for traced in row)
    body = element(
        "main",
        element("h1", f"Where {models} looks"),
        element("p", "Left and right turn to the next image, up and down to the next step.", class_="note"),
        _bar(steps, len(rows)),
        *slides,
        class_="slides",
    )
    return page(f"Where {models} looks", body, source("flip.js"))


def trace_figure(traced: Traced, name: str) -> Html:
    """A trace, captioned by what its picture does not say: how the image was chosen, and caveats. name: unique on the page."""
    scene = panel(traced)
    drawing = element("div", Html(svg_part(scene, name)), style=f"min-width:{SMALLEST * scene.width:.0f}px;max-width:{scene.width:.0f}px")
    picture = scrolling(drawing, f"{traced.model}, {traced.image}, {traced.condition}")
    said = [f"{text}." for text in (traced.chosen, traced.note) if text]
    return element("figure", picture, element("figcaption", " ".join(said)) if said else Html(""))


def _slide(number: int, row: Sequence[Traced]) -> Html:
    figures = [trace_figure(traced, f"trace-{number}-{k}") for k, traced in enumerate(row)]
    heading = element("h2", f"{number}. {row[0].image}", class_="unseen")  # the picture says it
    return element("section", heading, element("div", *figures, class_="traces"), class_="slide", aria_label=row[0].image)


def _bar(steps: int, images: int) -> Html:
    slider = element("input", type="range", id="step", min=1, max=steps, value=steps)
    return element(
        "div",
        element("button", "Previous", type="button", id="previous"),
        element("button", "Next", type="button", id="next"),
        element("span", f"{images} images", id="place", role="status"),
        element("label", join("Up to step "), slider, " ", element("output", str(steps), id="shown", for_="step")),
        class_="bar",
        id="bar",
        hidden=True,
    )
