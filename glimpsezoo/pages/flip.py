"""A page of traces to flip through: image after image, step after step. Without scripts, all of them stand below each other."""

from collections.abc import Sequence

from glimpsezoo.pages.html import Html, element, join, page, scrolling
from glimpsezoo.pictures.layout import in_words, panel
from glimpsezoo.pictures.svg import svg_part
from glimpsezoo.pictures.traced import Traced

SMALLEST = 0.9  # of a trace's size: smaller letters are not readable; a narrow screen scrolls


def flip_page(rows: Sequence[Sequence[Traced]]) -> str:
    """The page: a slide an image, with its conditions side by side."""
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
    return page(f"Where {models} looks", body, _SCRIPT)


def trace_figure(traced: Traced, name: str) -> Html:
    """A trace with its words as caption. name: unique on the page."""
    scene = panel(traced)
    drawing = element("div", Html(svg_part(scene, name)), style=f"min-width:{SMALLEST * scene.width:.0f}px;max-width:{scene.width:.0f}px")
    picture = scrolling(drawing, f"{traced.model}, {traced.image}, {traced.condition}")
    return element("figure", picture, element("figcaption", in_words(traced)))


def _slide(number: int, row: Sequence[Traced]) -> Html:
    figures = [trace_figure(traced, f"trace-{number}-{k}") for k, traced in enumerate(row)]
    heading = element("h2", f"{number}. {row[0].image}")
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


_SCRIPT = """
'use strict';
const slides = [...document.querySelectorAll('.slide')], of = id => document.getElementById(id), step = of('step');
let at = 0;
function show() {
  slides.forEach((slide, k) => { slide.hidden = k !== at; });
  of('place').textContent = 'Image ' + (at + 1) + ' of ' + slides.length;
  of('shown').textContent = step.value;
  for (const shape of slides[at].querySelectorAll('[data-step]'))
    shape.style.display = Number(shape.dataset.step) > Number(step.value) ? 'none' : '';
}
function turn(by) { at = (at + by + slides.length) % slides.length; show(); }
function go(by) { step.value = Number(step.value) + by; show(); }
of('previous').addEventListener('click', () => turn(-1));
of('next').addEventListener('click', () => turn(1));
step.addEventListener('input', show);
document.addEventListener('keydown', event => {
  if (event.target === step || event.altKey || event.ctrlKey || event.metaKey) return;
  const act = {ArrowRight: () => turn(1), ArrowLeft: () => turn(-1), ArrowDown: () => go(1), ArrowUp: () => go(-1)}[event.key];
  if (act) { event.preventDefault(); act(); }
});
of('bar').hidden = false;
show();
"""
