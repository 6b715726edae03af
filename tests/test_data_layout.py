"""How a folder is read: splits with usual names, classes with the name of a split, ignored files, and ambiguous folders."""

import os
from pathlib import Path

import pytest
from data_files import dark_and_light, flat, opened, right, save

from glimpsezoo.data.opening import told
from glimpsezoo.errors import GlimpseZooError


def sizes(folder: Path, **settings: str) -> dict[str, int]:
    return {split: len(opened(f"folder:{folder}", split, size=16, **settings)) for split in ("train", "calibration", "test")}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("TRAIN", "Valid"),
        ("train_set", "validation-set"),
        ("train", "dev"),
        ("training", "eval"),
        ("Train Images", "Test Images"),
    ],
)
def test_split_folders_are_known_by_any_usual_name(tmp_path: Path, train: str, test: str) -> None:
    dark_and_light(tmp_path / train, count=20)
    dark_and_light(tmp_path / test, count=5)
    data = opened(f"folder:{tmp_path}", "test", size=16)
    assert data.task.classes == ("dark", "light")
    assert right(data) == 1
    assert sizes(tmp_path) == {"train": 36, "calibration": 4, "test": 10}
    assert f"train from {train}" in told(data)  # pyright: ignore[reportOperatorIssue]
    assert f"test from {test}" in told(data)  # pyright: ignore[reportOperatorIssue]


def test_hidden_and_system_folders_and_files_are_left_out_at_every_depth_and_said(tmp_path: Path) -> None:
    dark_and_light(tmp_path)
    before = opened(f"folder:{tmp_path}", "test", size=16)
    for name in (".ipynb_checkpoints", "__MACOSX", "dark/.ipynb_checkpoints", "light/deeper/.thumbs"):
        save(flat(200), tmp_path / name / "1.png")
    for name in ("dark/._1.png", "Thumbs.db", "dark/desktop.ini", ".DS_Store"):
        save(flat(200), tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("a note")
    save(flat(200), tmp_path / "stray.png")
    data = opened(f"folder:{tmp_path}", "test", size=16)
    assert data.task.classes == ("dark", "light")
    assert data.info.fingerprint == before.info.fingerprint
    assert right(data) == 1
    assert data.info.inferred is not None
    assert dict(data.info.inferred.left_out) == {
        "hidden or of the system": "8 (.DS_Store, ._1.png, .ipynb_checkpoints, ...)",
        "no image": "1 (notes.txt)",
        "outside class folders": "1 (stray.png)",
    }


@pytest.mark.parametrize("names", [("bus", "car", "train"), ("test", "exam", "quiz"), ("val", "d'isere"), ("crash test", "road")])
def test_a_class_may_be_called_like_a_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        for k in range(5):
            save(flat(10 * k), tmp_path / name / f"{k}.png")
    assert opened(f"folder:{tmp_path}", "test", size=16).task.classes == tuple(sorted(names))


@pytest.mark.parametrize(
    ("made", "words", "advised"),
    [
        # what may be classes or splits
        (("train/a/", "test/a/", "more/"), "may be classes (more, test, train) or splits (train, test)", {"layout": "splits"}),
        (("train/a/", "test/a/", "more/"), "may be classes", {"layout": "classes"}),
        (("train/", "test/"), "got images of no class in these", {"layout": "classes"}),
        # a split without class folders beside one that has them
        (("train/a/", "train/b/", "val/a/", "val/b/", "test/"), "--set data.test=val", {"test": "val"}),
        (("train/a/", "train/b/", "test/"), "--set data.train=train", {"train": "train"}),
        # splits with unknown names
        (("old/a/", "old/b/", "new/a/", "new/b/"), "data.train=new --set data.test=old", {"train": "new", "test": "old"}),
        (("old/a/", "old/b/", "new/a/", "new/b/"), "data.layout=classes", {"layout": "classes"}),
        (("b_test/a/", "b_test/b/", "b_train/a/", "b_train/b/"), "data.train=b_train --set", {"train": "b_train", "test": "b_test"}),
        # splits in each class
        (("cat/test/", "cat/train/", "dog/test/", "dog/train/"), "move these above those (train/cat), or", {"layout": "classes"}),
        # a folder in a folder of the same name, as archives make them
        (
            ("b_test/b_test/a/", "b_test/b_test/b/", "b_train/b_train/a/", "b_train/b_train/b/"),
            "data.train=b_train/b_train --set data.test=b_test/b_test",
            {"train": "b_train/b_train", "test": "b_test/b_test"},
        ),
        (
            ("train/train/a/", "train/train/b/", "test/test/a/", "test/test/b/"),
            "choose by --set data.train=train/train",
            {"train": "train/train", "test": "test/test"},
        ),
        (("train/all/a/", "train/all/b/", "test/all/"), "the only class, by --set data.train=train", {"train": "train"}),
        (
            ("seg_train/seg_train/a/", "seg_train/seg_train/b/", "seg_test/seg_test/a/", "seg_test/seg_test/b/", "seg_pred/seg_pred/"),
            "by --set data.train=seg_train/seg_train --set data.test=seg_test/seg_test; if",
            {"train": "seg_train/seg_train", "test": "seg_test/seg_test"},
        ),
        # a test split without class folders, or with one alone
        (
            ("sign_train/sign_train/a/", "sign_train/sign_train/b/", "sign_test/sign_test/"),
            "sign_train; if",
            {"train": "sign_train/sign_train"},
        ),
        (("my_train/a/", "my_train/b/", "my_test/a/"), "by --set data.train=my_train; if", {"train": "my_train"}),
        (("my_train/a/", "my_train/b/", "test/"), "by --set data.train=my_train; if", {"train": "my_train"}),
        (("my_val/a/", "my_val/b/", "my_test/a/", "my_test/c/"), "by --set data.test=my_test; if", {"test": "my_test"}),
        (("bullet train/old/", "bullet train/new/", "bus/old/"), "if classes, by --set data.layout=classes", {"layout": "classes"}),
        (("photos/a/", "photos/b/"), "got the one folder 'photos' with folders in it", {"layout": "classes"}),
        (("Train/a/", "train/a/", "test/a/"), "choose by --set data.train=train", {"train": "train"}),
    ],
)
def test_what_can_be_read_in_two_ways_is_asked_and_the_answer_works(
    tmp_path: Path, made: tuple[str, ...], words: str, advised: dict[str, str]
) -> None:
    for place in made:
        for k in range(5):
            save(flat(20 * k), tmp_path / place / f"{k}.png")
    with pytest.raises(GlimpseZooError) as raised:
        opened(f"folder:{tmp_path}", "test", size=16)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(opened(f"folder:{tmp_path}", "test", size=16, **advised)) > 0


def test_beside_test_images_of_no_class_a_part_of_the_training_folder_is_held_out(tmp_path: Path) -> None:
    dark_and_light(tmp_path / "train", count=20)
    save(flat(100), tmp_path / "test" / "1.png")
    with pytest.raises(GlimpseZooError, match=r"held out, by --set data.train=train$"):
        opened(f"folder:{tmp_path}", "test", size=16)
    assert sizes(tmp_path, train="train") == {"train": 30, "calibration": 2, "test": 8}


def test_split_folders_can_be_named(tmp_path: Path) -> None:
    for name, count in (("train", 10), ("test", 5), ("val", 6)):
        dark_and_light(tmp_path / name, count=count)
    assert sizes(tmp_path) == {"train": 18, "calibration": 2, "test": 10}
    assert sizes(tmp_path, test="val") == {"train": 18, "calibration": 2, "test": 12}
    assert sizes(tmp_path, train="test", test="train") == {"train": 10, "calibration": 0, "test": 20}
    data = opened(f"folder:{tmp_path}", "test", size=16, test="val")
    assert data.info.inferred is not None
    assert dict(data.info.inferred.left_out) == {"no split that is read": "1 (test)"}
    assert opened(f"folder:{tmp_path}", "test", size=16, test="test").info == opened(f"folder:{tmp_path}", "test", size=16).info
    with pytest.raises(GlimpseZooError, match=r"--set data.test=dev expects a folder in .*, and there are test, train, val"):
        opened(f"folder:{tmp_path}", "test", test="dev")


@pytest.mark.parametrize("name", ["Training/", "./Training", "Training//"])
def test_a_folder_has_one_name_however_it_is_typed(tmp_path: Path, name: str) -> None:
    dark_and_light(tmp_path / "Training", count=12)
    dark_and_light(tmp_path / "Testing", count=12)
    divided = {"train": 18, "calibration": 2, "test": 4}
    assert sizes(tmp_path, train="Training", test="Training") == divided
    assert sizes(tmp_path, train=name, test="Training") == sizes(tmp_path, train="Training", test=name) == divided
    marks = {opened(f"folder:{tmp_path}", "test", size=16, test=each).info.fingerprint for each in ("Training", name)}
    assert len(marks) == 1
    with pytest.raises(GlimpseZooError, match=r"--set data.test=. expects a folder in .*, and there are Testing, Training"):
        opened(f"folder:{tmp_path}", "test", test="./")


@pytest.mark.parametrize("on_bad_image", ["fail", "skip"])
def test_too_few_images_for_a_test_split_are_said_before_anything_is_measured(tmp_path: Path, on_bad_image: str) -> None:
    dark_and_light(tmp_path / "train", count=4)
    with pytest.raises(GlimpseZooError, match=r"every 5th image of a class is one, and the largest of 2 classes \(dark, light\) has 4"):
        opened(f"folder:{tmp_path}", "test", on_bad_image=on_bad_image)
    for k in range(5):  # follow the advice
        save(flat(k), tmp_path / "train" / "dark" / f"more{k}.png")
        save(flat(k), tmp_path / "test" / "dark" / f"{k}.png")
        save(flat(k), tmp_path / "test" / "light" / f"{k}.png")
    assert len(opened(f"folder:{tmp_path}", "test")) == 10


def test_what_was_left_out_is_said_where_nothing_is_left(tmp_path: Path) -> None:
    for k in range(10):
        save(flat(20 * k), tmp_path / "photos" / "dark" / f"{k}", tmp_path / "photos" / "light" / f"{k}", format="PNG")
    with pytest.raises(GlimpseZooError, match=r"2 classes \(dark, light; left out: no image: 20 \(0, 1, 2, \.\.\.\)\) has 0"):
        opened(f"folder:{tmp_path}/photos", "test", size=16)


def test_a_class_that_is_too_small_for_a_test_image_is_not_dropped_in_silence(tmp_path: Path) -> None:
    dark_and_light(tmp_path, count=10)
    save(flat(100), tmp_path / "grey" / "1.png")
    with pytest.raises(GlimpseZooError, match=r"got none of 1 \('grey'\)"):
        opened(f"folder:{tmp_path}", "test", size=16)
    assert len(opened(f"folder:{tmp_path}", "test", size=16, on_bad_image="skip")) == 4


def test_linked_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    dark_and_light(tmp_path / "elsewhere")
    root = tmp_path / "set"
    root.mkdir()
    for name in ("dark", "light"):
        (root / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "dark" / "again").symlink_to(tmp_path / "elsewhere" / "dark")
    data = opened(f"folder:{root}", "test", size=16)
    assert (len(data), right(data)) == (4, 1)
    assert data.info.inferred is not None
    assert dict(data.info.inferred.left_out) == {"a link that leads back": "1 (again)"}


def test_files_that_cannot_be_opened_are_bad_images(tmp_path: Path) -> None:
    dark_and_light(tmp_path, count=4)
    (tmp_path / "dark" / "9.png").symlink_to(tmp_path / "gone.png")
    save(flat(200), tmp_path / "light" / "4.png")
    (tmp_path / "light" / "9.jpg").mkdir()
    data = opened(f"folder:{tmp_path}", "test", size=16, on_bad_image="skip")
    assert len(data) == 2
    found = list(data.examples(0, 2))
    assert "dark/9.png: expected an image, got none that can be read at '9.png' (No such file or directory)" in str(found[0])
    assert found[1].label == 1  # pyright: ignore[reportAttributeAccessIssue]
    before = data.info.fingerprint
    save(flat(50), tmp_path / "gone.png")
    assert opened(f"folder:{tmp_path}", "test", size=16).info.fingerprint != before


@pytest.mark.parametrize(("ending", "kind"), [("jfif", "JPEG"), ("jpe", "JPEG"), ("apng", "PNG"), ("tga", "TGA"), ("jp2", "JPEG2000")])
def test_every_ending_that_is_decoded_is_an_image(tmp_path: Path, ending: str, kind: str) -> None:
    for k in range(5):
        save(flat(50), tmp_path / "dark" / f"{k}.{ending}", format=kind)
        save(flat(200), tmp_path / "light" / f"{k}.{ending.upper()}", format=kind)
    assert right(opened(f"folder:{tmp_path}", "test", size=16)) == 1


@pytest.mark.skipif(os.getuid() == 0, reason="root may read all")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    dark_and_light(tmp_path)
    (tmp_path / "dark").chmod(0)
    with pytest.raises(GlimpseZooError, match=r"expected a folder that can be read, got .*dark"):
        opened(f"folder:{tmp_path}", "test")
