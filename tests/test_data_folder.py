"""`folder:PATH`: class folders of any usual layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import opened, picture

from glimpsezoo.data import BadImageError, batches
from glimpsezoo.errors import GlimpseZooError


def fill(folder: Path, count: int, *, first: int = 0, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + count):
        picture(k, 16).save(folder / f"{k:03}.{suffix}")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    fill(tmp_path / "set" / "cat", 20)
    fill(tmp_path / "set" / "ant", 30, first=50, suffix="JPEG")
    (tmp_path / "set" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "set" / "readme.txt").write_text("no class")
    return tmp_path / "set"


def test_one_folder_is_divided_by_class(flat: Path) -> None:
    rows, classes = {}, set()
    for split in ("test", "calibration", "train"):
        data = opened(f"folder:{flat}", split, size=16)
        classes.add(data.task.classes)
        rows[split] = [data[k].id for k in range(len(data))]
        assert data.labels().tolist() == [data[k].label for k in range(len(data))]
    assert classes == {("ant", "cat")}
    assert rows["test"] == [4, 9, 14, 19, 24, 29, 34, 39, 44, 49]  # every fifth of 30 ants, then of 20 cats
    assert rows["calibration"] == [11, 23, 41]  # the 10th and 20th of the other ants, the 10th of the other cats
    assert sorted(row for own in rows.values() for row in own) == list(range(50))


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_folders_of_splits_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    for label in ("a", "b"):
        fill(tmp_path / "train" / label, 10)
        fill(tmp_path / name / label, 4)
    sizes = {split: len(opened(f"folder:{tmp_path}", split, size=16)) for split in ("train", "calibration", "test")}
    assert sizes == {"train": 18, "calibration": 2, "test": 8}


def test_pixels_are_resized_and_cropped(flat: Path) -> None:
    data = opened(f"folder:{flat}", "test", size=14)  # 14 px are 14 / 16 of the shorter side: a plain crop
    example = data[-1 + len(data)]
    expected = torch.from_numpy(np.array(picture(19, 16))).permute(2, 0, 1)[:, 1:15, 1:15] / 255
    assert torch.equal(example.image, expected)
    assert opened(f"folder:{flat}", "test")[0].image.shape == (3, 224, 224)


def test_a_relative_path_may_stand_below_the_data_folder(flat: Path) -> None:
    assert len(opened("folder:set", "test", flat.parent, size=16)) == 10


def test_a_corrupt_file_is_named_and_can_be_skipped(flat: Path) -> None:
    file = flat / "cat" / "004.png"
    file.write_bytes(file.read_bytes()[:60])
    data = opened(f"folder:{flat}", "test", size=16)
    with pytest.raises(BadImageError, match=r"test split: cat/004.png: expected an image"):
        list(batches(data, 0, len(data), 8))
    assert sum(len(batch.skipped) for batch in batches(data, 0, len(data), 8, on_bad_image="skip")) == 1


def test_an_empty_class_is_named(flat: Path) -> None:
    (flat / "dog").mkdir()
    with pytest.raises(GlimpseZooError, match=r"got none of 1 \('dog'\)"):
        opened(f"folder:{flat}", "test")
    assert opened(f"folder:{flat}", "test", on_bad_image="skip").task.classes == ("ant", "cat", "dog")


def test_a_class_that_only_one_split_has_is_named_too(tmp_path: Path) -> None:
    for split, label in (("train", "a"), ("train", "b"), ("test", "a")):
        fill(tmp_path / split / label, 10)
    with pytest.raises(GlimpseZooError, match=r"test split of folder:.* got none of 1 \('b'\)"):
        opened(f"folder:{tmp_path}", "test")


@pytest.mark.parametrize(("trained", "tested"), [("Cat", "cat"), ("caf\u00e9", "cafe\u0301")])
def test_a_class_whose_name_the_other_split_writes_otherwise_is_told(tmp_path: Path, trained: str, tested: str) -> None:
    for split, label in (("train", trained), ("train", "dog"), ("test", tested), ("test", "dog")):
        fill(tmp_path / split / label, 10)
    if len(list((tmp_path / "train").iterdir())) != 2 or tested not in {folder.name for folder in (tmp_path / "test").iterdir()}:
        pytest.skip("this file system changes names")
    with pytest.raises(GlimpseZooError, match=f"or give '{trained}' and '{tested}' one name"):
        opened(f"folder:{tmp_path}", "test")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (None, "folder:PATH expects a folder of class folders"),
        ("", "which has none"),
        ("val/a", "got only"),
    ],
)
def test_what_is_no_folder_of_class_folders_is_said(tmp_path: Path, make: str | None, words: str) -> None:
    root = tmp_path / "root"
    if make is not None:
        fill(root / make, 1)
    with pytest.raises(GlimpseZooError, match=words):
        opened(f"folder:{root}", "train")


def test_the_fingerprint_follows_names_and_content(flat: Path) -> None:
    mark = opened(f"folder:{flat}", "test", size=16).info.fingerprint
    flat.rename(flat.with_name("moved"))
    assert opened(f"folder:{flat.with_name('moved')}", "test", size=16).info.fingerprint == mark
    picture(99, 16).save(flat.with_name("moved") / "cat" / "001.png")
    assert opened(f"folder:{flat.with_name('moved')}", "test", size=16).info.fingerprint != mark
