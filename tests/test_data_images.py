"""Natural images from Parquet files and folders: pixels, sizes, splits, augmentation, and what is wrong with a row."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import encoded, opened, picture, save, spec_of, tiny_imagenet, write_parquet
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from glimpsezoo.data import BadImageError, Example, ImageData, batches, sources, training_batches
from glimpsezoo.data.images import fitted
from glimpsezoo.data.preprocessing import Preprocessing
from glimpsezoo.data.sources import Division
from glimpsezoo.errors import GlimpseZooError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_imagenet(tmp_path_factory.mktemp("data") / "tiny-imagenet")


def measured(tiny: Path, split: str = "test", **settings: object) -> ImageData:
    """Five of 200 classes have images; the empty ones are not an error here."""
    return opened("tiny-imagenet", split, tiny, on_bad_image="skip", **settings)


def stacked(data: ImageData, **how: int) -> torch.Tensor:
    return torch.cat([batch.images for batch in batches(data, 0, len(data), how.pop("batch_size", 16), **how)])


def test_images_are_what_the_files_hold(tiny: Path) -> None:
    data = measured(tiny)
    expected = np.array(Image.open(io.BytesIO(encoded(picture(1007, 64), "JPEG"))))
    assert torch.equal(data[7].image, torch.from_numpy(expected).permute(2, 0, 1) / 255)
    assert (data[7].label, data[7].id, data[7].group) == (7 % 5, 7, 7)
    assert data.task.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("folder", ["", "..", "data"])
def test_a_copy_is_found_by_its_folder_its_parent_and_where_the_files_are(tiny: Path, folder: str) -> None:
    assert len(measured((tiny / folder).resolve())) == 40


def test_a_folder_without_the_data_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(GlimpseZooError) as error:
        opened("tiny-imagenet", "test", tmp_path)
    text = str(error.value)
    assert "zh-plus/tiny-imagenet" in text
    assert f"{tmp_path}/tiny-imagenet/[*/]*.parquet" in text
    assert "\n" not in text


def test_every_twentieth_image_of_a_class_calibrates_and_the_rest_is_trained_on(tiny: Path) -> None:
    calibration, train = measured(tiny, "calibration"), measured(tiny, "train")
    assert [calibration[k].id for k in range(len(calibration))] == [95, 96, 97, 98, 99]  # the 20th of each of five classes in turn
    assert sorted(calibration.labels().tolist()) == [0, 1, 2, 3, 4]
    assert {train[k].id for k in range(len(train))} == set(range(120)) - {95, 96, 97, 98, 99}


def test_labels_are_known_without_decoding(tiny: Path) -> None:
    for split in ("test", "calibration", "train"):
        data = measured(tiny, split)
        assert data.labels().tolist() == [data[k].label for k in range(len(data))]


@pytest.mark.parametrize("split", ["test", "calibration", "train"])
def test_streaming_gives_the_same_images_and_fingerprint(tiny: Path, split: str) -> None:
    kept, streamed = measured(tiny, split), measured(tiny, split, streaming=True)
    assert torch.equal(stacked(kept), stacked(streamed))
    assert kept.info.fingerprint == streamed.info.fingerprint
    assert torch.equal(kept.training_example(3, 2).image, streamed.training_example(3, 2).image)


def test_batch_size_and_workers_change_nothing(tiny: Path) -> None:
    data = measured(tiny)
    assert torch.equal(stacked(data), stacked(data, batch_size=7, workers=2))


def test_the_fingerprint_is_of_the_content_and_of_what_changes_pixels(tiny: Path, tmp_path: Path) -> None:
    mark = measured(tiny).info.fingerprint
    assert measured(tiny_imagenet(tmp_path / "copy")).info.fingerprint == mark
    assert measured(tiny_imagenet(tmp_path / "other", valid=45)).info.fingerprint != mark
    assert measured(tiny, size=32).info.fingerprint != mark
    assert measured(tiny, size=64, seed=5, colours="keep").info.fingerprint == mark  # the same pixels
    assert measured(tiny, "train", seed=5).info.fingerprint != measured(tiny, "train").info.fingerprint


def test_a_crop_covers_the_share_of_the_image_that_is_asked_for(tmp_path: Path) -> None:
    tiny = tiny_imagenet(tmp_path, train=10, valid=10)
    own, whole, half = (measured(tiny, size=32, **more) for more in ({}, {"crop": 1.0}, {"crop": 0.5}))
    image = Image.open(io.BytesIO(encoded(picture(1007, 64), "JPEG")))
    assert torch.equal(own[7].image, whole[7].image)  # the whole image is this set's own
    assert own.info.fingerprint == whole.info.fingerprint != half.info.fingerprint
    middle = torch.from_numpy(np.array(image.crop((16, 16, 48, 48)))).permute(2, 0, 1) / 255
    assert torch.equal(half[7].image, middle)
    assert "covers 50.0% of the shorter side" in half.info.transform


def test_crops_that_differ_by_less_than_is_said_are_told_apart(tiny: Path) -> None:
    marks = [measured(tiny, size=300, crop=crop).info.fingerprint for crop in (0.8766, 0.8769, 0.877)]
    assert len(set(marks)) == 3
    assert measured(tiny, size=300, crop="0.8770").info.fingerprint == marks[-1]


def test_a_changed_file_has_another_fingerprint(tmp_path: Path) -> None:
    before = measured(tiny_imagenet(tmp_path, train=10, valid=10)).info.fingerprint
    content = [encoded(picture(k, 64), "JPEG") for k in range(10)]
    write_parquet(tmp_path / "data" / "valid-00000-of-00001.parquet", content, [0] * 10, spec_of("tiny-imagenet").task.classes)  # pyright: ignore
    assert measured(tmp_path).info.fingerprint != before


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (256, 256), (100, 80)])
def test_other_sizes_are_resized_by_the_shorter_side_and_cropped_at_the_centre(width: int, height: int) -> None:
    image = picture(3, 8).resize((width, height), Image.Resampling.BICUBIC)
    expected = tv.center_crop(tv.resize(image, [256], interpolation=tv.InterpolationMode.BILINEAR), [224])
    found = fitted(image, (224, 224), 224 / 256)
    assert found.size == (224, 224)
    assert np.abs(np.array(found).astype(int) - np.array(expected).astype(int)).max() <= 2  # torchvision truncates the longer side


def test_a_thin_image_that_would_be_resized_to_too_many_pixels_is_a_bad_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for k in range(5):
            save(picture(k), tmp_path / name / f"{k}.png")
    thin = tmp_path / "b" / "4.png"
    Image.new("L", (1, 6000)).save(thin)
    data = opened(f"folder:{tmp_path}", "test", size=224)
    good, bad = data.examples(0, 2)
    assert isinstance(good, Example)
    words = r"256 x 1536000 pixels once it is resized, and 89,478,485 are the most"
    with pytest.raises(BadImageError, match=rf"b/4.png: .*{words}"):
        raise bad  # pyright: ignore[reportGeneralTypeIssues]
    for given in (thin, np.zeros((6000, 1, 3), dtype=np.uint8)):
        with pytest.raises(GlimpseZooError, match=words):
            Preprocessing((224, 224), 3, 224 / 256).fit(given)


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    image = picture(5, 64)
    assert fitted(image, (64, 64), 1.0) is image


@pytest.mark.parametrize("size", [32, 96])
def test_the_size_can_be_set(tiny: Path, size: int) -> None:
    data = measured(tiny, size=size)
    assert data[0].image.shape == (3, size, size)
    assert data.task.image_size == (size, size)


def test_grey_images_become_rgb_and_colours_grey(tmp_path: Path) -> None:
    content = [encoded(picture(0, 8, 1)), encoded(picture(1, 8, 3))]
    write_parquet(tmp_path / "test-0.parquet", content, [0, 1], ("a", "b"))
    write_parquet(tmp_path / "train-0.parquet", content, [0, 1], ("a", "b"))
    coloured, grey = (opened("hf:me/mixed", "test", tmp_path, size=8, channels=channels) for channels in (3, 1))
    assert (coloured.task.channels, grey.task.channels) == (3, 1)
    assert torch.equal(coloured[0].image, grey[0].image.expand(3, -1, -1))
    luma = (coloured[1].image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    assert float((grey[1].image[0] - luma).abs().max()) < 2 / 255


class TestAugmentation:
    def test_it_is_a_function_of_seed_row_and_epoch(self, tiny: Path) -> None:
        data = measured(tiny, "train")
        one = data.training_example(4, 0)
        torch.manual_seed(123)
        before = torch.get_rng_state()
        assert torch.equal(one.image, data.training_example(4, 0).image)
        assert torch.equal(before, torch.get_rng_state())  # torch's own draws do not change
        assert not torch.equal(one.image, data.training_example(4, 1).image)
        assert not torch.equal(one.image, measured(tiny, "train", seed=1).training_example(4, 0).image)
        assert one.image.shape == (3, 64, 64)
        assert one.label == data[4].label

    def test_workers_do_not_matter(self, tiny: Path) -> None:
        data = measured(tiny, "train")
        here, there = (list(training_batches(data, 1, 0, 16, workers)) for workers in (0, 2))
        assert all(torch.equal(a.images, b.images) and torch.equal(a.ids, b.ids) for a, b in zip(here, there, strict=True))

    def test_without_colours_and_crop_it_only_flips(self, tiny: Path) -> None:
        data = measured(tiny, "train", colours="keep", crop_area=1.0, crop_aspect=1.0)
        seen = set()
        for epoch in range(12):
            image = data.training_example(2, epoch).image
            flipped = torch.equal(image, data[2].image.flip(2))
            assert flipped or torch.equal(image, data[2].image)
            seen.add(flipped)
        assert seen == {True, False}

    def test_a_crop_covers_the_share_that_is_asked_for(self, tmp_path: Path) -> None:
        ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 64, 3))  # a pixel's column is its value / 4
        write_parquet(tmp_path / "train-0.parquet", [encoded(Image.fromarray(ramp.copy()))] * 20, [0, 1] * 10, ("a", "b"))
        for least in (0.25, 0.81):
            data = opened("hf:me/ramp", "train", tmp_path, size=64, colours="keep", crop_area=least, crop_aspect=1.0)
            widths = []
            for epoch in range(40):
                row = data.training_example(0, epoch).image[0, 0] * 255 / 4
                widths.append(float((row.max() - row.min() + 1) / 64))
            assert min(widths) >= least**0.5 - 0.04
            assert min(widths) < least**0.5 + 0.15  # widths do vary down to there
            assert max(widths) > 0.93

    def test_random_interpolation_takes_several_kinds(self, tmp_path: Path) -> None:
        board = Image.fromarray((np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)).resize((64, 64), Image.Resampling.NEAREST)
        for split in ("train", "test"):
            write_parquet(tmp_path / f"{split}-0.parquet", [encoded(board)] * 2, [0, 1], ("a", "b"))
        fixed = {"size": 50, "colours": "keep", "crop_area": 0.85}
        smooth, mixed = (opened("hf:me/board", "train", tmp_path, interpolation=kind, **fixed) for kind in ("bilinear", "random"))
        values = [len(mixed.training_example(0, epoch).image.unique()) for epoch in range(16)]
        assert min(values) == 2  # nearest neighbours make no new values
        assert max(values) > 2
        assert all(len(smooth.training_example(0, epoch).image.unique()) > 2 for epoch in range(16))


class TestBadRows:
    WRONG = {  # noqa: RUF012
        2: "cannot be decoded",
        4: "cannot be decoded",
        5: "expected an image, got none",
        6: "expected a label in 0..199, got a missing label",
        7: "expected a label in 0..199, got a missing label",
        8: "expected a label in 0..199, got 200",
    }

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        content: list[bytes | None] = [encoded(picture(k, 64), "JPEG") for k in range(12)]
        content[2] = encoded(picture(2, 64), "JPEG")[:200]
        content[4], content[5] = b"no image at all", None
        labels = [0, 1, 0, 1, 0, 1, None, -1, 200, 1, 0, 1]
        for name in ("valid", "train"):
            write_parquet(tmp_path / f"{name}-00000-of-00001.parquet", content, labels)
        return tmp_path

    @pytest.mark.parametrize("streaming", [True, False])
    def test_each_is_named_in_one_line(self, folder: Path, streaming: bool) -> None:
        data = measured(folder, streaming=streaming)
        for row, words in self.WRONG.items():
            with pytest.raises(BadImageError) as error:
                data[row]
            assert f"tiny-imagenet, test split: row {row} of valid-00000-of-00001.parquet" in str(error.value)
            assert words in str(error.value)
            assert "\n" not in str(error.value)
        assert data.labels()[[6, 7]].tolist() == [-1, -1]

    def test_they_fail_a_batch_or_are_left_out_and_counted(self, folder: Path) -> None:
        data = measured(folder)
        with pytest.raises(BadImageError, match="row 2"):
            list(batches(data, 0, 12, 4))
        found = list(batches(data, 0, 12, 4, on_bad_image="skip"))
        assert [batch.ids.tolist() for batch in found] == [[0, 1, 3], [], [9, 10, 11]]
        assert sum(len(batch.skipped) for batch in found) == len(self.WRONG)
        assert found[1].images.shape == (0, 3, 64, 64)

    def test_workers_name_them_too(self, folder: Path) -> None:
        with pytest.raises(BadImageError, match=r"^tiny-imagenet, test split: row 2 of valid.*\)$"):
            list(batches(measured(folder), 0, 12, 4, 1))

    def test_training_names_them(self, folder: Path) -> None:
        data = measured(folder, "train")
        with pytest.raises(BadImageError, match="tiny-imagenet, train split: row 4"):
            data.training_example(4, 0)

    def test_an_empty_class_is_named_unless_skipped(self, folder: Path) -> None:
        with pytest.raises(GlimpseZooError, match=r"198 \('bullfrog \(n01641577\)', .*--on-bad-image skip"):
            opened("tiny-imagenet", "test", folder)


class TestImageNet:
    """The rules of the gated sets, on a copy with a few rows."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        known = {name: replace(known, division=Division(head=3)) for name, known in sources.HUB_SETS.items()}
        monkeypatch.setattr(sources, "HUB_SETS", known)
        labels = [150, 3, 99, 100, 7, 999, 42, 0, 98, 100]
        for name in ("train", "validation", "test"):
            own = [-1] * 10 if name == "test" else labels
            content = [encoded(picture(k, 300), "JPEG") for k in range(10)]
            write_parquet(tmp_path / "imagenet-1k" / "data" / f"{name}-00000-of-00001.parquet", content, own)
        return tmp_path

    @pytest.mark.parametrize("streaming", [True, False])
    def test_imagenet100_is_the_first_hundred_classes(self, folder: Path, streaming: bool) -> None:
        rows = {}
        for split in ("test", "calibration", "train"):
            data = opened("imagenet100", split, folder, on_bad_image="skip", streaming=streaming)
            rows[split] = [data[k].id for k in range(len(data))]
            assert all(0 <= data[k].label < 100 for k in range(len(data)))
            assert data[0].image.shape == (3, 224, 224)
        assert rows == {"test": [1, 2, 4, 6, 7, 8], "calibration": [1, 2, 4], "train": [6, 7, 8]}

    @pytest.mark.parametrize("streaming", [True, False])
    def test_imagenet_measures_the_validation_split(self, folder: Path, streaming: bool) -> None:
        rows = {}
        for split in ("test", "calibration", "train"):
            data = opened("imagenet", split, folder, on_bad_image="skip", streaming=streaming)
            rows[split] = [data[k].id for k in range(len(data))]
        assert rows == {"test": list(range(10)), "calibration": [0, 1, 2], "train": list(range(3, 10))}
