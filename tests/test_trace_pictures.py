"""What is drawn is in the file: shapes in SVG and in pixels, texts escaped, a frame a step."""

import base64
import io
import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from glimpsezoo.reports.flip import flip_page
from glimpsezoo.reports.pictures.layout import in_words, panel, sheet
from glimpsezoo.reports.pictures.raster import gif_file, painted, png_file
from glimpsezoo.reports.pictures.regions import LONGER, image_with_regions
from glimpsezoo.reports.pictures.scene import DARK, LIGHT, SERIES, Bitmap, Box, Dot, Path, Scene, Words, beside, fitting, framed, stacked
from glimpsezoo.reports.pictures.svg import data_uri, svg_file, svg_part
from glimpsezoo.reports.pictures.traced import Glimpse, Traced, TracedLook

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>alert("1")</script>&\x00\x1b'
PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def scene(*shapes, width: float = 40, height: float = 20) -> Scene:
    return Scene(width, height, "a title", "a description", shapes)


def traced(*rights: bool | None, name: str = "one", label: str | None = "cat", steps: int | None = None, wide: int = 1) -> Traced:
    """A tree of a node with `wide` children, who have `wide` in all."""
    looks, number, parents = [], 0, [0]
    for step, right in enumerate(rights, start=1):
        count = 1 if step == 1 else wide
        glimpses = [
            Glimpse(
                number + k + 1,
                parents[k % len(parents)],
                0.1 * k % 0.5,
                0.25,
                0.5 if step > 1 else 1.0,
                0.5 if step > 1 else 1.0,
                (PIXELS,),
            )
            for k in range(count)
        ]
        parents, number = [glimpse.number for glimpse in glimpses], number + count
        looks.append(TracedLook(step, tuple(glimpses), name if right is None else "cat" if right else "dog", 0.875, right))
    return Traced("m", name, "clean", label, PIXELS, tuple(looks), steps or len(rights), "confidence 0.9" if steps else "", 1234)


def colour(image: Image.Image, x: float, y: float) -> str:
    red, green, blue = image.getpixel((x, y))  # type: ignore[misc]
    return f"#{red:02x}{green:02x}{blue:02x}"


def test_shapes_are_painted_where_they_are():
    drawn = scene(Box(x=10, y=5, width=10, height=10, fill="good"), Dot(x=30, y=10, radius=4, fill="bad"))
    image = painted(drawn, 3)
    assert image.size == (120, 60)
    inside = {(x, y): colour(image, 3 * x, 3 * y) for x in (9, 11, 18, 21, 30, 35) for y in (4, 10)}
    assert {place for place, found in inside.items() if found == LIGHT["good"]} == {(11, 10), (18, 10)}
    assert {place for place, found in inside.items() if found == LIGHT["bad"]} == {(30, 10)}


def test_an_outline_leaves_its_inside_alone():
    image = painted(scene(Box(x=10, y=5, width=10, height=10, stroke="ink", line=2)), 4)
    assert colour(image, 60, 40) == LIGHT["paper"]
    assert [colour(image, x, 40) for x in (36, 40, 43)] == [LIGHT["ink"]] * 3  # a px on both sides of the edge
    assert colour(image, 34, 40) == LIGHT["paper"]


def test_a_dashed_line_has_gaps_and_another_has_none():
    for dashed, alternate in ((True, True), (False, False)):
        image = painted(scene(Path(x=2, y=10, points=((0, 0), (36, 0)), line=2, dashed=dashed)), 2)
        row = [colour(image, x, 20) for x in range(6, 74)]
        assert (LIGHT["paper"] in row) == alternate
        assert LIGHT["ink"] in row


def test_pixels_are_enlarged_without_smoothing_and_kept_exactly_in_svg():
    drawn = scene(Bitmap(x=0, y=0, width=16, height=16, pixels=PIXELS), width=16, height=16)
    np.testing.assert_array_equal(np.asarray(painted(drawn, 1)), PIXELS.repeat(2, 0).repeat(2, 1))
    (image,) = ElementTree.fromstring(svg_file(drawn)).iter(f"{SVG}image")
    content = base64.b64decode(image.get("href", "").removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), PIXELS)


def test_only_large_images_of_pages_are_coded_with_losses():
    large = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert data_uri(large, exact=True).startswith("data:image/png")
    assert data_uri(PIXELS, exact=False).startswith("data:image/png")
    assert data_uri(large, exact=False).startswith("data:image/jpeg")
    assert len(data_uri(large, exact=False)) < len(data_uri(large, exact=True)) / 2


def test_texts_are_escaped_and_control_characters_are_gone():
    drawn = Scene(9, 9, EVIL, EVIL, (Words(x=0, y=5, text=EVIL), Box(x=0, y=0, width=2, height=2, fill="ink", tip=EVIL)))
    root = ElementTree.fromstring(svg_file(drawn))  # it would not parse otherwise
    shown = EVIL.replace("\x00", r"\u0000").replace("\x1b", r"\u001b")
    assert {each.text for each in root.iter() if each.tag in {f"{SVG}title", f"{SVG}desc", f"{SVG}text"}} == {shown}
    assert "<script" not in svg_file(drawn)
    assert "<script" not in flip_page([[traced(None, name=EVIL, label=EVIL)]]).split("<script>")[0]


def test_a_picture_says_what_it_shows():
    root = ElementTree.fromstring(svg_part(scene(), "here"))
    assert root.get("role") == "img"
    named = {each.get("id"): each.text for each in root}
    assert [named[name] for name in root.get("aria-labelledby", "").split()] == ["a title", "a description"]


def test_drawings_are_put_beside_and_below_each_other():
    one, two = (scene(Dot(x=1, y=2, radius=1), width=width, height=height) for width, height in ((10, 5), (20, 8)))
    both = beside([one, two], 4)
    assert (both.width, both.height, [shape.x for shape in both.shapes]) == (34, 8, [1, 15])
    both = stacked([one, two], 4)
    assert (both.width, both.height, [shape.y for shape in both.shapes]) == (20, 17, [2, 11])
    assert [(shape.x, shape.y) for shape in framed(one, 3).shapes] == [(4, 5)]


def test_a_step_is_hidden_before_it_is_taken():
    whole = panel(traced(True, False, True))
    assert whole.steps == 3
    texts = [shape.text for shape in whole.until(1).shapes if isinstance(shape, Words)]
    assert "step 1" in texts
    assert "step 2" not in texts
    assert not any(text.startswith("took") for text in texts)  # the end is not known yet


@pytest.mark.parametrize(("rights", "roles"), [((True, False), ["good", "bad"]), ((True, True), ["good", "good"]), ((None,), ["ink"])])
def test_right_is_green_and_wrong_is_red_and_both_are_said(rights: tuple[bool | None, ...], roles: list[str]):
    drawn = panel(traced(*rights))
    said = [shape for shape in drawn.shapes if isinstance(shape, Words) and "87.5%" in shape.text]
    assert [shape.fill for shape in said] == roles
    marks = {True: "right", False: "wrong", None: ""}
    assert [shape.text.removeprefix("87.5%").strip() for shape in said] == [marks[right] for right in rights]
    image = painted(drawn)
    counts = {
        role: sum(count for count, rgb in image.getcolors(1 << 20) or [] if f"#{bytes(rgb).hex()}" == LIGHT[role])
        for role in ("good", "bad")
    }
    assert {role for role, count in counts.items() if count > 200} == set(roles) - {"ink"}


def test_every_glimpse_has_its_number_on_the_image_and_below_it():
    found = traced(True, True, True, wide=3)
    numbers = [shape.text for shape in panel(found).shapes if isinstance(shape, Words) and shape.text.isdecimal()]
    assert sorted(numbers) == sorted([str(k) for k in range(1, 8)] * 2)


def test_children_are_joined_to_their_parents():
    found = traced(True, True, True, wide=2)
    lines = [shape for shape in panel(found).shapes if isinstance(shape, Path) and shape.stroke == "muted"]
    assert len(lines) == 4  # of five nodes
    flat = panel(traced(True, True, True)).until(1)
    assert not [shape for shape in flat.shapes if isinstance(shape, Path)]


def at(*places: tuple[float, float, float], parents: tuple[int, ...] = ()) -> Traced:
    """One glimpse per step: (left, top, side) as shares of the image's sides."""
    looks = tuple(
        TracedLook(k, (Glimpse(k, dict(enumerate(parents, 1)).get(k, 0), left, top, side, side, (PIXELS,)),), "cat", 0.5, True)
        for k, (left, top, side) in enumerate(places, start=1)
    )
    return Traced("m", "one", "clean", "cat", PIXELS, looks, len(looks), "", 1)


@pytest.mark.parametrize(
    ("parents", "starts"), [((), [(0.5, 0.5), (0.125, 0.125)]), ((0, 1, 1), [(0.5, 0.5), (0.5, 0.5)])], ids=["in turn", "from the parent"]
)
def test_a_path_leads_from_look_to_look(parents: tuple[int, ...], starts: list[tuple[float, float]]):
    shapes = list(image_with_regions(at((0, 0, 1), (0, 0, 0.25), (0.5, 0.5, 0.5), parents=parents)))
    lines = [shape for shape in shapes if isinstance(shape, Path) and shape.stroke != "paper"]
    assert [(line.x / LONGER, line.y / LONGER) for line in lines] == starts
    ends = [((line.x + line.points[-1][0]) / LONGER, (line.y + line.points[-1][1]) / LONGER) for line in lines]
    assert ends == [(0.125, 0.125), (0.75, 0.75)]
    assert [line.step for line in lines] == [2, 3]
    assert max(line.line for line in lines) < 1.5  # thin


@pytest.mark.parametrize(
    "places",
    [
        [(0, 0, 1)],
        [(0, 0, 1), (0.1, 0.3, 0.4), (0.08, 0.35, 0.4)],
        [(0, 0, 1), (0.82, 0, 0.18), (0, 0.82, 0.18)],
        [(0.25, 0.25, 0.25), (0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.5, 0.5, 0.25)],
    ],
)
def test_a_number_stands_beside_its_region_and_not_on_it(places: list[tuple[float, float, float]]):
    shapes = list(image_with_regions(at(*places)))
    numbers = [shape for shape in shapes if isinstance(shape, Box) and shape.fill]
    assert len(numbers) == len(places)
    for number, (left, top, side) in zip(numbers, places, strict=True):
        x, y, long = left * LONGER, top * LONGER, side * LONGER
        across = max(x - number.x - number.width, number.x - x - long)
        down = max(y - number.y - number.height, number.y - y - long)
        assert 0 <= max(across, down) <= 3, "touches it from outside"
        assert min(across, down) <= 0
    for number in numbers:  # what is looked at closely stays free
        for left, top, side in places:
            if side < 0.3:
                across = min(number.x + number.width, (left + side) * LONGER) - max(number.x, left * LONGER)
                down = min(number.y + number.height, (top + side) * LONGER) - max(number.y, top * LONGER)
                assert min(across, down) <= 0


def test_an_svg_is_light_or_dark_as_its_reader():
    text = svg_file(panel(traced(True)))
    style = text.partition("<style>")[2].partition("</style>")[0]
    light, dark = style.split("@media(prefers-color-scheme:dark)")
    for colours, part in ((LIGHT, light), (DARK, dark)):
        assert all(f".f-{role}{{fill:{value}}}" in part for role, value in colours.items())
    assert 'class="f-paper"/>' in text  # whatever page it stands on


def test_a_caption_does_not_repeat_the_picture():
    one = traced(True)
    assert "<figcaption>" not in flip_page([[one]])
    said = replace(one, chosen="drawn at random", note="a caveat")
    (caption,) = re.findall(r"<figcaption>(.*?)</figcaption>", flip_page([[said]]))
    assert caption == "drawn at random. a caveat."


def test_many_glimpses_are_counted_and_not_drawn():
    drawn = panel(traced(True, True, wide=81))
    assert [shape.text for shape in drawn.shapes if isinstance(shape, Words) and "more" in shape.text] == ["and 57 more"]
    assert drawn.height < 1300


def test_nothing_is_drawn_outside_the_picture():
    for found in (traced(True, False, True, wide=3), traced(None, name="n" * 300), traced(True, wide=1)):
        drawn = sheet([[found, found]])
        for shape in drawn.shapes:
            right = shape.x + (shape.width if isinstance(shape, Box | Bitmap) else 0)
            bottom = shape.y + (shape.height if isinstance(shape, Box | Bitmap) else 0)
            assert 0 <= shape.x <= right <= drawn.width, shape
            assert 0 <= shape.y <= bottom <= drawn.height, shape


def test_the_end_is_told():
    assert traced(True, True).exit == "took all 2 steps"
    assert traced(True).exit == "takes one look"
    assert traced(True, True, steps=4).exit == "exit after step 2 of 4 (confidence 0.9)"
    said = in_words(traced(True, False))
    assert said.startswith("one, clean: label cat; step 1: 1 region, cat 87.5% (right); step 2: 1 region, dog 87.5% (wrong); ")
    assert said.endswith("took all 2 steps, 1.234 k MACs.")


def test_a_png_and_a_gif_open_and_the_gif_has_a_frame_a_step():
    one, two = panel(traced(True, True, True)), panel(traced(True, True))
    png = Image.open(io.BytesIO(png_file(one)))
    assert (png.format, png.size) == ("PNG", tuple(int(np.ceil(2 * side)) for side in (one.width, one.height)))
    gif = Image.open(io.BytesIO(gif_file([one, two])))
    assert (gif.format, gif.n_frames) == ("GIF", 5)  # type: ignore[attr-defined]
    frames = []
    for frame in range(5):
        gif.seek(frame)
        frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert all((before != after).any() for before, after in pairwise(frames))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_words_and_lines_can_be_read_in_both_modes(colours: dict[str, str]):
    """WCAG 2.2 AA: 4.5 for words; series colours are words too, in badges and headings."""
    assert LIGHT.keys() == DARK.keys()
    series = [f"s{k}" for k in range(SERIES)]
    for role in ("ink", "muted", "good", "bad", *series):
        assert contrast(colours[role], colours["paper"]) >= 4.5, role
    for role in series:
        assert contrast(colours[role], colours["on"]) >= 4.5, role


def test_long_and_strange_names_fit_a_line():
    assert fitting("a" * 100, 110, 10) == "a" * 17 + "..."
    assert fitting("short\nname", 200, 10) == "short name"


def test_the_page_of_traces_has_a_slide_an_image_and_knows_its_steps():
    page = flip_page([[traced(True, True), traced(True, False)], [traced(True)]])
    assert page.count('class="slide"') == 2
    assert page.count("<figure>") == 3
    assert set(re.findall(r'data-step="(\d)"', page)) == {"1", "2"}
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_a_parent_stands_beside_the_middle_of_its_children():
    """Node 1 has the children 2 and 3; 2 has 4 and 6, 3 has 5 and 7."""
    drawn = panel(traced(True, True, True, wide=2))
    assert len([shape for shape in drawn.shapes if isinstance(shape, Bitmap)]) == 1 + 5
    place = {shape.tip.split(":")[0]: shape.y for shape in drawn.shapes if isinstance(shape, Bitmap) and shape.tip.startswith("glimpse")}
    assert place["glimpse 1"] == pytest.approx((place["glimpse 2"] + place["glimpse 3"]) / 2)
    assert len({round(y) for y in place.values()}) == 5 - 2  # an only child stands beside its parent


def test_numbers_do_not_hide_each_other():
    drawn = panel(traced(True, True, True, wide=6))
    tree = min(shape.y for shape in drawn.shapes if isinstance(shape, Words) and shape.text.startswith("seen"))
    badges = [shape for shape in drawn.shapes if isinstance(shape, Box) and shape.height == 15 and shape.y < tree]
    assert len(badges) == 13
    places = sorted((badge.y, badge.x, badge.x + badge.width) for badge in badges)
    for (y, _, right), (other, left, _) in pairwise(places):
        assert other != y or left >= right - 1e-6
