"""`predict`: any image of a user gets what `run` would have said of it, or one line that says what to do."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import make_card, photo_card
from PIL import ExifTags, Image
from toy_models import Peek, batch_of_images

import glimpsezoo as gz
from glimpsezoo.core import macs
from glimpsezoo.data.preprocessing import each_of
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import Task


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours, different everywhere."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def strange(here: Path) -> Path:
    """A folder of two classes with images of many sizes and modes, no two alike."""
    folder = here / "photos"
    for name in ("dark", "light"):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            photograph(30 + 7 * number, 40, seed=number + (100 if name == "dark" else 0)).save(folder / name / f"{number}.png")
    turned = photograph(90, 60)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save(folder / "dark" / "turned.jpg", exif=exif)
    photograph(50, 80).convert("RGBA").save(folder / "light" / "alpha.png")
    photograph(33, 32).convert("P").save(folder / "light" / "palette.png")
    photograph(64, 40).convert("CMYK").save(folder / "dark" / "cmyk.jpg")
    deep = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    Image.fromarray(deep).save(folder / "dark" / "deep.png")
    return folder


def test_a_file_gets_the_pixels_and_the_answer_that_run_gives_it(strange: Path):
    model = gz.load(str(photo_card(strange.parent / "card").folder))
    data = [gz.open_data(f"folder:{strange}", split, size=32) for split in ("test", "train", "calibration")]
    transform = gz.transform_of(model)
    by_pixels = {transform(file).numpy().tobytes(): file for file in strange.rglob("*.*")}
    images = [each[index].image for each in data for index in range(len(each))]
    assert len(images) == len(by_pixels) == 21
    found = model.predict([by_pixels[image.numpy().tobytes()] for image in images])  # every one is among them
    rows = gz.evaluate(model, data[0]).rows
    assert [each.index for each in found[: len(data[0])]] == rows.prediction[:, -1].tolist()


def test_crops_are_those_of_the_cards_data(here: Path):
    transform = gz.transform_of(gz.load(str(photo_card(here / "card").folder)))
    assert "87.5%" in repr(transform)
    found = transform.fit(photograph(320, 480))
    assert found.window == pytest.approx((20, 100, 280, 280), abs=5)  # 32 / .875 is rounded to 37 px
    alone = photograph(320, 480).crop((17, 96, 294, 373)).resize((32, 32), Image.Resampling.BILINEAR)
    seen = (found.pixels * 255).byte().permute(1, 2, 0).numpy().astype(int)
    assert abs(seen - np.asarray(alone).astype(int)).mean() < 3


def test_it_is_a_transform_of_torchvision(strange: Path):
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = gz.transform_of(gz.load(str(photo_card(strange.parent / "card").folder)))
    image, _ = ImageFolder(str(strange), transform=v2.Compose([transform, v2.Identity()]))[0]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32


def test_every_kind_of_image_gets_the_same_answer(here: Path):
    model = gz.load(str(photo_card(here / "card").folder))
    picture = photograph(90, 60)
    picture.save(here / "p.png")
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    kinds: list[Any] = ["p.png", Path("p.png"), Path("p.png").read_bytes(), picture, array, tensor, picture.convert("RGBA")]
    first, *others = model.predict(kinds)
    for other in others:
        torch.testing.assert_close(other.logits, first.logits, rtol=0, atol=1e-6)
    for floats in (array / 255, (tensor / 255).half(), tensor.double() / 255):  # the same pixels but for their rounding to 8 bits
        (found,) = model.predict(floats)
        torch.testing.assert_close(found.logits, first.logits, rtol=0, atol=0.02)
    batches: list[Any] = [np.stack([array, array]), torch.stack([tensor, tensor]), iter([picture, picture])]
    assert [len(model.predict(batch)) for batch in batches] == [2, 2, 2]
    assert model.predict([]) == []


def test_an_array_of_the_models_size_is_taken_as_it_is(here: Path):
    model = gz.load(str(photo_card(here / "card").folder))
    image = torch.rand(3, 32, 32)
    (found,) = model.predict(image)
    torch.testing.assert_close(found.logits, model(image[None])[0].detach(), rtol=1e-4, atol=1e-5)


def test_an_answer_has_names_probabilities_looks_the_exit_and_the_cost():
    model, digits = gz.load("mgnet.digits"), gz.open_data("digits", "calibration")
    images = [digits[index].image for index in range(40)]
    late, early = model.predict(images, top=3), model.predict(images, top=3, exit_rule=gz.Confidence(0.9))
    for found in (*late, *early):
        assert [guess.label for guess in found.top] == [model.task.classes[guess.index] for guess in found.top]
        assert found.top == tuple(sorted(found.top, key=lambda guess: -guess.probability))
        assert found.probability == pytest.approx(float(found.logits.softmax(0).max()), rel=1e-5)
        assert len(found.looks) == found.exit_step <= found.steps == 3
    assert {found.exit_step for found in late} == {3}
    measured = gz.evaluate(model, "digits", split="calibration", exit_rule=gz.Confidence(0.9))
    assert [found.macs for found in early] == measured.rows.macs[: len(images)].tolist()
    assert len({found.macs for found in early}) > 1
    assert len(model.predict(images[0], top=99)[0].top) == 10


def test_looks_are_in_pixels_of_the_image_as_it_was_given():
    model = gz.load("pyramid-m3.digits")
    digit = gz.open_data("digits", "calibration")[3].image[0]
    square = Image.fromarray((digit.numpy() * 255).astype(np.uint8))
    wide = Image.new("L", (200, 128))  # the model sees the square in the middle, at half of its size
    wide.paste(square.resize((128, 128), Image.Resampling.NEAREST), (36, 0))
    (found,), (at_size,) = model.predict(wide), model.predict(gz.transform_of(model)(wide))
    assert found.looks[0] == ((36, 0, 128, 128),)
    assert len(at_size.looks) > 1
    assert [[(2 * x + 36, 2 * y, 2 * w, 2 * h) for x, y, w, h in look] for look in at_size.looks] == [list(look) for look in found.looks]


@pytest.mark.parametrize("name", ["pyramid-m3.digits", "ranzato.digits"])
def test_an_image_gets_the_same_answer_alone_and_in_any_batch(name: str):
    model, digits = gz.load(name), gz.open_data("digits", "calibration")
    images = [digits[index].image for index in range(12)]
    order = random.Random(0).sample(range(12), 12)
    alone = [model.predict(image)[0] for image in images]
    for place, found in zip(order, model.predict([images[place] for place in order], batch_size=5), strict=True):
        own = alone[place]
        assert (found.label, found.exit_step, found.macs) == (own.label, own.exit_step, own.macs)
        for look, same in zip(found.looks, own.looks, strict=True):
            assert [value for window in look for value in window] == pytest.approx([value for window in same for value in window], abs=1e-3)


@pytest.mark.parametrize(
    ("image", "facts"),
    [
        (torch.linspace(0, 255, 256).view(1, 16, 16), "[0, 1]|0 to 255|divide them by 255"),
        (torch.linspace(-2, 2, 256).view(1, 16, 16), "[0, 1]|-2 to 2|before they are normalised"),
        (torch.zeros(3, 16, 16), "one channel|[3, 16, 16]|convert"),
        (np.zeros((16, 16, 3), np.uint8), "one channel|[16, 16, 3]|convert"),
        (torch.zeros(16, 16, 1), "one channel|[16, 16, 1]|move the axis"),
        (torch.full((1, 16, 16), float("nan")), "finite|256 of 256"),
        (torch.zeros(1, 16, 16, dtype=torch.int64), "uint8|int64"),
        (np.zeros((16, 16), bool), "uint8|bool"),
        (np.zeros((0, 16)), "pixels|none"),
        (np.zeros(16), "[H, W]|[16]"),
        ("missing.png", "missing.png|No such file"),
        (".", "folder '.'"),
        (b"GIF89a", "6 bytes"),
    ],
)
def test_what_is_not_an_image_that_fits_says_what_to_do(image: Any, facts: str):
    model = gz.create_model("cnn4", task=Task((16, 16), 1, ("a", "b")))
    with pytest.raises(GlimpseZooError) as raised:
        model.predict(image)
    assert all(fact in str(raised.value) for fact in facts.split("|")), raised.value


def test_what_is_not_an_image_at_all_says_so():
    with pytest.raises(GlimpseZooError, match="'int'"):
        gz.transform_of(gz.create_model("cnn4", data="digits")).fit(7)
    with pytest.raises(GlimpseZooError, match="'int'"):
        list(each_of(7))
    with pytest.raises(GlimpseZooError, match="'dict'"):
        list(each_of({"a": "a.png"}))


def test_the_bad_one_of_several_is_named_by_its_number():
    model = gz.create_model("cnn4", task=Task((16, 16), 1, ("a", "b")))
    with pytest.raises(GlimpseZooError, match=r"^image 2: "):
        model.predict([*[torch.zeros(1, 16, 16)] * 2, torch.full((1, 16, 16), 2.0)])


def test_colours_are_not_lost_in_silence():
    model = gz.create_model("cnn4", task=Task((16, 16), 1, ("a", "b")))
    grey = Image.new("RGB", (16, 16), (9, 9, 9))
    found = model.predict([photograph(20, 20), grey, grey.convert("L")])
    assert [each.conversions for each in found] == [("colours to grey",), (), ()]


def test_a_cut_file_and_a_bomb_are_one_line(monkeypatch: pytest.MonkeyPatch):
    model = gz.create_model("cnn4", task=Task((16, 16), 3, ("a", "b")))
    content = io.BytesIO()
    photograph(200, 200).save(content, "PNG")
    with pytest.raises(GlimpseZooError, match="decoded"):
        model.predict(content.getvalue()[:2000])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(GlimpseZooError, match=r"bytes.*pixels, and 100 are the most"):
        model.predict(content.getvalue())


def test_logits_that_are_not_finite_are_an_error():
    model = gz.create_model("cnn4", task=Task((16, 16), 1, ("a", "b")))
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(GlimpseZooError, match=r"finite logits.*1 of 1"):
        model.predict(torch.zeros(1, 16, 16))


def test_a_model_is_called_as_any_other_of_torch():
    model, images = Peek(3), batch_of_images(4).requires_grad_()
    logits = model(images)
    torch.testing.assert_close(logits, gz.rollout(model, images).logits)
    logits.sum().backward()
    assert images.grad is not None
    with pytest.raises(GlimpseZooError, match=r"\[B, 1, H, W\].*\[1, 16, 16\]"):
        model(images[0])
    with pytest.raises(GlimpseZooError, match=r"\[B, 1, H, W\].*\[4, 3, 16, 16\]"):
        model(images.expand(4, 3, 16, 16))


def test_by_name(here: Path):
    card = make_card(here / "mine", "cnn4")
    found = gz.predict(str(card.folder), torch.zeros(1, 64, 64), top=1)
    assert [len(each.top) for each in found] == [1]
    with pytest.raises(GlimpseZooError, match="got 'tpu9'"):
        gz.predict(str(card.folder), torch.zeros(1, 64, 64), device="tpu9")


def test_what_a_model_costs_is_counted_once_and_not_for_every_batch(monkeypatch: pytest.MonkeyPatch):
    model, counts = gz.create_model("cnn4", data="digits"), list[int]()
    count = macs.count_macs
    monkeypatch.setattr(macs, "count_macs", lambda run: counts.append(1) or count(run))
    costs = {model.predict(torch.zeros(1, 64, 64))[0].macs for _ in range(3)}
    assert len(costs) == 1
    once = len(counts)
    model.predict([torch.zeros(1, 64, 64)] * 3, batch_size=1)
    assert len(counts) == once > 0
