"""`--corrupted-dir`: published folders are read unchanged, and errors for incomplete folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import picture

from glimpsezoo.conditions.corruptions.published import CorruptedFolders
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import Task

TASK = Task((32, 32), 3, ("ant", "cat"))
NAMES = ("fog", "snow")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two corruptions of three ants and two cats, as PNG so that pixels can be compared, and a class that is not in the task."""
    for number, name in enumerate(NAMES):
        for severity in range(1, 6):
            for label, count in (("cat", 2), ("ant", 3), ("bee", 1)):
                place = tmp_path / "published" / name / str(severity) / label
                place.mkdir(parents=True)
                for k in range(count):
                    picture(100 * number + 10 * severity + k + 5 * (label == "cat"), 32).save(place / f"{k}.png")
    return tmp_path / "published"


def test_images_come_as_they_are_with_the_labels_of_the_task(folder: Path) -> None:
    data = CorruptedFolders(folder, TASK, NAMES).open("snow", 4)
    examples = list(data.examples(0, 5))
    assert len(data) == 5
    assert data.labels().tolist() == [0, 0, 0, 1, 1]
    for k, example in enumerate(examples):
        assert not isinstance(example, Exception)
        assert (example.label, example.id) == (int(k >= 3), k)
        expected = np.array(picture(140 + (k if k < 3 else k - 3 + 5), 32)).transpose(2, 0, 1)
        assert torch.equal(example.image, torch.from_numpy(expected / np.float32(255)))


def test_labels_follow_the_tasks_order_of_classes(folder: Path) -> None:
    data = CorruptedFolders(folder, Task((32, 32), 3, ("cat", "ant")), NAMES).open("fog", 1)
    assert data.labels().tolist() == [0, 0, 1, 1, 1]


def test_grey_tasks_and_other_sizes_get_their_own(folder: Path) -> None:
    grey = CorruptedFolders(folder, Task((32, 32), 1, ("ant", "cat")), NAMES).open("fog", 1)
    assert grey[0].image.shape == (1, 32, 32)
    small = CorruptedFolders(folder, Task((16, 24), 3, ("ant", "cat")), NAMES).open("fog", 1)
    assert small[0].image.shape == (3, 16, 24)


def test_corruption_severity_and_content_make_the_fingerprint(folder: Path) -> None:
    folders = CorruptedFolders(folder, TASK, NAMES)
    marks = [folders.open(name, severity).info.fingerprint for name in NAMES for severity in (1, 2)]
    assert len(set(marks)) == 4
    assert folders.open("fog", 1).info.source == "folder:published"
    picture(999, 32).save(folder / "fog" / "1" / "ant" / "0.png")
    assert CorruptedFolders(folder, TASK, NAMES).open("fog", 1).info.fingerprint != marks[0]


@pytest.mark.parametrize(
    ("remove", "words"),
    [
        ("", "expects a folder of CORRUPTION/SEVERITY/CLASS/IMAGE"),
        ("fog", "expects a folder fog in .* got none"),
        ("fog/3", "expects severities 1 to 5 in .*fog, got none of 3"),
        ("snow/2/cat", "each of the data's 2 classes in .*snow/2, got ant, bee without 'cat'"),
        ("snow/5/ant/1.png", r"as many images under every corruption and severity \(5\), got 4 in snow/5"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_measured(folder: Path, remove: str, words: str) -> None:
    target = folder / remove
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    with pytest.raises(GlimpseZooError, match=words) as caught:
        CorruptedFolders(folder, TASK, NAMES)
    assert "\n" not in str(caught.value)


def test_a_class_without_images_is_named(folder: Path) -> None:
    for file in (folder / "fog" / "2" / "ant").iterdir():
        file.unlink()
    (folder / "fog" / "2" / "ant" / "notes.txt").write_text("no image")
    with pytest.raises(GlimpseZooError, match=r"images of every class in .*fog/2, got none in ant"):
        CorruptedFolders(folder, TASK, NAMES)


def test_a_corruption_that_is_spelt_otherwise_is_suggested(folder: Path) -> None:
    with pytest.raises(GlimpseZooError, match=r"expects a folder snows in .*did you mean 'snow'"):
        CorruptedFolders(folder, TASK, ["snows"])
