"""What the messages about data, and about the data and the evidence of cards, advise, done: see `test_advice`."""

import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import datasets
from advice import FLOPS, PHOTOS, UNTRAINED, Case, change_card
from command_line import make_card, photo_card
from data_files import encoded, flat, write_parquet
from PIL import Image

from glimpsezoo.specs import Task

Before = Callable[[ExitStack], None]
RECORDS = [encoded(flat(50)), encoded(flat(200))] * 10
TABLE = "show hf:me/table --data-dir table"
SET = "show hf:me/set --data-dir set"
MADE = "show folder:made"


def _folders(*places: str, empty: tuple[str, ...] = ()) -> Before:
    """Images in these folders of `made`, and none in others."""

    def make(stack: ExitStack) -> None:
        for place in (*places, *empty):
            Path("made", place).mkdir(parents=True, exist_ok=True)
        for place in places:
            for number in range(10):
                Image.new("RGB", (16, 16), (20 * number,) * 3).save(Path("made", place, f"{number}.png"))

    return make


def _table(stack: ExitStack) -> None:
    """A set of two splits with more columns than one needs, some of them no images and no labels."""
    for split, kinds, changing in (("train", ["cat", "dog"], ["cat", "dog"]), ("test", ["cat", "dog", "fox"], [0, 1])):
        columns: dict[str, tuple[Any, list[Any]]] = {
            "image": (datasets.Image(), [{"bytes": content, "path": None} for content in RECORDS]),
            "label": (datasets.Value("string"), ["cat", "dog"] * 10),
            "pairs": (datasets.List(datasets.Value("int64")), [[0, 1]] * 20),
            "ids": (datasets.Value("int64"), [0, 40_000_000] * 10),
            "signs": (datasets.Value("int64"), [-1, 1] * 10),
            "kind": (datasets.ClassLabel(names=kinds), [0, 1] * 10),
            "changing": (datasets.Value("string" if split == "train" else "int64"), changing * 10),
        }
        features = datasets.Features({name: kind for name, (kind, _) in columns.items()})
        Path("table").mkdir(exist_ok=True)
        datasets.Dataset.from_dict({name: values for name, (_, values) in columns.items()}, features=features).to_parquet(
            f"table/{split}.parquet"
        )


def _splits(*names: str) -> Before:
    """A set of these splits."""

    def make(stack: ExitStack) -> None:
        for name in names:
            write_parquet(Path("set", f"{name}.parquet"), RECORDS, [0, 1] * 10, ["cat", "dog"])
        files = "".join(f"  - split: {name}\n    path: {name}.parquet\n" for name in names)
        Path("set/README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")

    return make


def _empty_test(stack: ExitStack) -> None:
    write_parquet(Path("set/train.parquet"), RECORDS, [0, 1] * 10, ["cat", "dog"])
    write_parquet(Path("set/test.parquet"), [], [], ["cat", "dog"])


def _configurations(stack: ExitStack, *, told: bool = True) -> None:
    """A set of two configurations. told: by its README."""
    readme = "---\nconfigs:\n"
    for name in ("derm", "path"):
        for split in ("train", "test"):
            write_parquet(Path("set", name, f"{split}-00000-of-00001.parquet"), RECORDS, [0, 1] * 10, ["cat", "dog"])
        readme += f"- config_name: {name}\n  data_files:\n"
        readme += "".join(f"  - split: {split}\n    path: {name}/{split}-*\n" for split in ("train", "test"))
    if told:
        Path("set/README.md").write_text(readme + "---\n")


def _cards(cards: Iterable[tuple[str, str, int]]) -> Before:
    """Cards for photographs: (name, the folder that it was trained on, size). Of the folders, all hold the same."""

    def make(stack: ExitStack) -> None:
        for name, folder, size in cards:
            if not Path(folder).exists():
                shutil.copytree("photos", folder)
            photo_card(Path("zoo_cards", name), data=f"folder:{folder}", size=size, classes="cat dog")

    return make


def _card_with_settings(stack: ExitStack) -> None:
    task = Task((32, 32), 3, ("cat", "dog"))
    settings = {"glimpses": 2, "backbone": "cnn4", "downsample": 2}
    make_card(Path("zoo_cards/looks"), "mgnet", data="folder:photos", task=task, data_settings={"size": 32}, **settings)


ON_TRAIN = "run cnn4 --split train --measure accuracy --limit 3 --checkpoint none --set data.size=32 --data"
FEW = "--measure accuracy --limit 3"
QUICKLY = f"{FEW} {UNTRAINED} --set data.size=32"
OF_DATA = {
    # folders
    "expects a folder in {}, and there are": Case(
        f"{MADE} --set data.test=dev", (f"{MADE} --set data.test=val",), _folders("train/a", "train/b", "val/a", "val/b")
    ),
    "data.layout=classes expects no split folders": Case(
        f"{MADE} --set data.layout=classes --set data.train=a",
        (f"{MADE} --set data.layout=classes", f"{MADE} --set data.train=a"),
        _folders("a/x", "a/y", "b/x", "b/y"),
    ),
    "choose the split to measure by --set data.test={}": Case(
        MADE, (f"{MADE} --set data.test=val",), _folders("train/a", "train/b", "val/a", "val/b", "test")
    ),
    "which is held out, by --set data.train={}": Case(MADE, (f"{MADE} --set data.train=train",), _folders("train/a", "train/b", "test")),
    "choose by --set data.layout=classes or --set data.layout=splits": Case(
        MADE, (f"{MADE} --set data.layout=classes", f"{MADE} --set data.layout=splits"), _folders("train/a", "test/a", "more")
    ),
    "sort each split's images into a folder per class": Case(MADE, (f"{MADE} --set data.layout=classes",), _folders("train", "test")),
    "name that folder, or take it for a class by": Case(
        MADE, ("show folder:made/all", f"{MADE} --set data.layout=classes"), _folders("all/a", "all/b")
    ),
    "if splits, name them by --set data.train={}": Case(
        MADE,
        (f"{MADE} --set data.train=new --set data.test=old", f"{MADE} --set data.layout=classes"),
        _folders("old/a", "old/b", "new/a", "new/b"),
    ),
    "read all images of a class together by": Case(
        MADE, (f"{MADE} --set data.layout=classes",), _folders("cat/train", "cat/test", "dog/train", "dog/test")
    ),
    "if splits, choose by {}; if classes, by": Case(
        MADE,
        (f"{MADE} --set data.train=my_train/my_train", f"{MADE} --set data.layout=classes"),
        _folders("my_train/my_train/a", "my_train/my_train/b", "my_test/my_test"),
    ),
    "name one by --set data.train={}, or ": Case(
        f"{MADE} --set data.layout=splits", (f"{MADE} --set data.train=new",), _folders("old/a", "old/b", "new/a", "new/b")
    ),
    "take the folders for classes by --set data.layout=classes": Case(
        "show folder:photos --set data.layout=splits", ("show folder:photos --set data.layout=classes",)
    ),
    "expected one such folder in {}, got": Case(MADE, (f"{MADE} --set data.train=train",), _folders("Train/a", "train/a", "test/a")),
    "if it is the only class, by --set data.{}={}": Case(
        MADE, (f"{MADE} --set data.train=train/train",), _folders("train/train/a", "train/train/b", "test/a", "test/b")
    ),
    "add some, or choose by --set data.test=NAME": Case(
        f"{MADE} --set data.test=test",
        (f"{MADE} --set data.test=val",),
        _folders("train/a", "train/b", "val/a", "val/b", empty=("test/a", "test/b")),
    ),
    "expected {}/train to train and calibrate on": Case(
        f"{ON_TRAIN} folder:made --set data.layout=splits",
        (f"{ON_TRAIN} folder:made --set data.train=more", f"{ON_TRAIN} folder:made --set data.train=val"),
        _folders(*(f"{split}/{name}" for split in ("val", "more") for name in "ab")),
    ),
    # tables
    "name another column by --set data.{}=COLUMN": Case(f"{TABLE} --set data.image=label", (f"{TABLE} --set data.image=image",), _table),
    "expected one class per row in the column {} of": Case(
        f"{TABLE} --set data.label=pairs", (f"{TABLE} --set data.label=kind --set data.train=test",), _table
    ),
    "expected labels of one kind": Case(f"{TABLE} --set data.label=changing", (f"{TABLE} --set data.label=label",), _table),
    "expected class numbers from 0 in the column": Case(f"{TABLE} --set data.label=signs", (f"{TABLE} --set data.label=label",), _table),
    "expected class numbers in the column": Case(f"{TABLE} --set data.label=ids", (f"{TABLE} --set data.label=label",), _table),
    "or name other splits by --set data.train=NAME": Case(
        f"{TABLE} --set data.label=kind", (f"{TABLE} --set data.label=kind --set data.train=test --set data.test=train",), _table
    ),
    "with the names train and test": Case(SET, (f"{SET} --set data.train=fold1 --set data.test=fold2",), _splits("fold1", "fold2")),
    "expected a split of {} to train and calibrate on": Case(
        f"{ON_TRAIN} hf:me/set --data-dir set",
        (
            f"{ON_TRAIN} hf:me/set --data-dir set --set data.train=more",
            f"{ON_TRAIN} hf:me/set --data-dir set --set data.train=test",
        ),
        _splits("test", "more"),
    ),
    "expected one of the configurations of": Case(SET, (f"{SET} --set data.subset=path",), _configurations),
    "name one by --set data.subset={}": Case(SET, (f"{SET} --set data.subset=derm",), lambda stack: _configurations(stack, told=False)),
    "leave out @REVISION, or --data-dir": Case("show hf:me/set@v1 --data-dir set", (SET,), _splits("train", "test")),
    "add some, or choose another --split": Case(
        f"run cnn4 --data hf:me/set --data-dir set {QUICKLY}",
        (f"run cnn4 --data hf:me/set --data-dir set --split train {QUICKLY}",),
        _empty_test,
    ),
    "measure on all of them by --set data.test={}": Case(
        f"run cnn4 --data hf:me/set --data-dir set {QUICKLY}",
        (f"run cnn4 --data hf:me/set --data-dir set --set data.test=train {QUICKLY}",),
        lambda stack: write_parquet(Path("set/train.parquet"), RECORDS[:8], [0, 1] * 4, ["cat", "dog"]),
    ),
    # of commands
    "expect a data set to show": Case("show mgnet --set data.size=16", ("show mgnet", "show folder:photos --set data.size=16")),
    "--set expects a setting of the data here": Case("show folder:photos --set size=16", ("show folder:photos --set data.size=16",)),
    "--data-dir expects a data set, got none": Case("check cnn4 --data-dir .", (f"check cnn4 --data-dir . {PHOTOS}",)),
    # of cards
    "name one by --data {}, or run them one by one": Case(
        f"run small other {FLOPS}",
        (f"run small other {FLOPS} --data folder:photos", f"run other {FLOPS}"),
        _cards([("other", "others", 32)]),
    ),
    "does not say which data it was trained on": Case(
        f"run cnn4.digits {FLOPS}",
        (f"run cnn4.digits {FLOPS} --data digits",),
        change_card("cnn4.digits", data={"name": "unknown", "settings": {}}),
    ),
    "choose one by --set data.{}={}, or ": Case(
        f"run small large {FLOPS}",
        (f"run small large {FLOPS} --set data.size=32", f"run large {FLOPS}"),
        _cards([("large", "photos", 48)]),
    ),
    "expected a folder for finished units that can be written, got {} ({}): name another with --store": Case(
        f"run small {FEW} --store photos.toml",
        (f"run small {FEW} --store units",),
        lambda stack: Path("photos.toml").write_text(""),
    ),
    "--ray-address expects --engine ray, got {} with --engine {}": Case(
        f"run small {FEW} --ray-address here:1 --engine threads", (f"run small {FEW} --engine threads",)
    ),
    "--store expects a folder or a URL, got {}: write": Case(
        f"run small {FEW} --store memory:units", (f"run small {FEW} --store memory://units",)
    ),
    "expects all images to be measured": Case(
        f"run small {FEW} --update-card", (f"run small {FEW}", "run small --measure accuracy --update-card")
    ),
    "with its own settings, got": Case(
        "run looks --set policy=centre --update-card",
        ("run looks --set policy=centre", "run looks --update-card"),
        _card_with_settings,
    ),
    "split of the data that it was trained on, got": Case(
        "run small --measure accuracy --split train --update-card",
        tuple(f"run small --measure accuracy {rest}" for rest in ("--split train", "--update-card", "--split train --update-card --force")),
    ),
    "would lose parts of the evidence of": Case(
        "run small --measure flops --update-card",
        ("{quoted}", "run small --measure flops", "run small --measure flops --update-card --force"),
    ),
    "name images to train on (see splits)": Case(MADE, (f"{MADE} --set data.train=test",), _folders("test/a", "test/b"), status=0),
    "and {} more: --json has all": Case(MADE, (f"{MADE} --json",), _folders(*(f"class{k}" for k in range(21))), status=0),
}
