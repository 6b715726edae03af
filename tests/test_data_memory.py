"""Training images in memory: decoded once, the same as without, and only if they fit."""

from pathlib import Path

import pytest
import torch
from data_files import dark_and_light, encoded, flat, opened, picture, save, tiny_imagenet, write_parquet

from glimpsezoo.data import BadImageError, Batch, ImageData, memory, training_batches
from glimpsezoo.data.images import NaturalImages
from glimpsezoo.data.memory import InMemory, in_memory
from glimpsezoo.training.prepare import prepare_training
from glimpsezoo.training.request import TrainingRequest

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_imagenet(tmp_path_factory.mktemp("data") / "tiny-imagenet")


def train_split(tiny: Path, **settings: object) -> NaturalImages:
    data = opened("tiny-imagenet", "train", tiny, on_bad_image="skip", **settings)
    assert isinstance(data, NaturalImages)
    return data


def held(data: ImageData) -> InMemory:
    found = in_memory(data, CPU)
    assert isinstance(found, InMemory)
    return found


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(torch.equal(x, y) for a, b in zip(one, other, strict=True) for x, y in zip(a[:4], b[:4], strict=True))


@pytest.mark.parametrize(
    "settings",
    [{}, {"colours": "keep", "size": 32}, {"colours": "distort"}, {"interpolation": "random", "colours": "keep", "size": 80}],
    ids=["autoaugment", "smaller", "distorted", "any-interpolation"],
)
def test_they_become_the_same_as_without_in_every_epoch_and_from_any_batch(tiny: Path, settings: dict[str, object]) -> None:
    plain = train_split(tiny, **settings)
    data = held(plain)
    for epoch in (0, 1):
        whole = list(training_batches(plain, epoch, 0, 50))
        assert same(list(training_batches(data, epoch, 0, 50)), whole)
        assert same(list(training_batches(held(plain), epoch, 0, 50, first_batch=1)), whole[1:])
    assert torch.equal(data.training_example(7, 1).image, plain.training_example(7, 1).image)


def test_each_is_decoded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked = held(train_split(tiny)), list[int]()
    plain = NaturalImages.stored
    monkeypatch.setattr(NaturalImages, "stored", lambda self, places: [asked.extend(places), plain(self, places)][1])
    for epoch in range(3):
        assert sum(len(batch.labels) for batch in training_batches(data, epoch, 0, 50)) == len(data)
    assert sorted(asked) == list(range(len(data)))


def test_workers_may_decode_them(tiny: Path) -> None:
    plain = train_split(tiny)
    data = held(plain)
    assert same(list(training_batches(data, 0, 0, 50, 2)), list(training_batches(plain, 0, 0, 50)))
    assert data.missing(range(len(data))) == []


def test_images_of_different_sizes_are_held_too(tmp_path: Path) -> None:
    content = [encoded(picture(k, 20 + 4 * k)) for k in range(12)]
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}-0.parquet", content, [k % 2 for k in range(12)], ("a", "b"))
    plain = opened("hf:me/mixed", "train", tmp_path, size=32)
    assert same(list(training_batches(held(plain), 0, 0, 5)), list(training_batches(plain, 0, 0, 5)))


def test_without_augmentation_they_are_as_measured(tiny: Path) -> None:
    plain = train_split(tiny)
    assert same(list(training_batches(held(plain), 0, 0, 50, augment=False)), list(training_batches(plain, 0, 0, 50, augment=False)))


def test_what_does_not_fit_is_decoded_anew(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = train_split(tiny)
    needed = len(data) * 3 * 64 * 64
    monkeypatch.setattr(memory, "free_memory", lambda device: 4 * needed)
    assert held(data).expected == needed
    monkeypatch.setattr(memory, "free_memory", lambda device: 4 * needed - 4)
    assert in_memory(data, CPU) is data


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_memory(CPU) == 0
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable:    4000 kB\n")
    assert memory.free_memory(CPU) == 4_096_000
    (tmp_path / "memory.current").write_text("1000\n")
    for limit, free in (("max", 4_096_000), ("3000", 2000)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert memory.free_memory(CPU) == free


def test_digits_are_in_memory_anyway() -> None:
    data = opened("digits", "train")
    assert in_memory(data, CPU) is data


def test_a_bad_image_is_named_when_it_comes(tmp_path: Path) -> None:
    content = [encoded(picture(k, 20)) for k in range(100)]
    content[80] = b"no image"
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}-0.parquet", content, [k % 2 for k in range(100)], ("a", "b"))
    data = held(opened("hf:me/broken", "train", tmp_path, size=16))
    for workers in (0, 1):
        with pytest.raises(BadImageError, match=r"train split: row 80 of train-0.parquet: .*cannot be decoded"):
            list(training_batches(data, 0, 0, 10, workers))


def test_a_training_says_that_it_holds_them(tmp_path: Path) -> None:
    dark_and_light(tmp_path / "photos", count=20)
    save(flat(60, 200), tmp_path / "photos" / "dark" / "large.png")
    request = TrainingRequest(
        model="cnn4",
        data=f"folder:{tmp_path / 'photos'}",
        device=CPU,
        recipe_file="cnn4.digits",
        sets=("data.size=16", "train.batch_size=4", "train.steps=3"),
        output=tmp_path / "card",
    )
    work = prepare_training(request)
    assert any("held in memory" in note for note in work.notes)
    assert [line.done for line in work.steps()] == [1, 2, 3]
