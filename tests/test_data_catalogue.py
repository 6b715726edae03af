"""The catalogue: every data set is described completely, without loading anything heavy, and its settings are checked."""

import subprocess
import sys
from dataclasses import replace

import pytest
from data_files import opened, spec_of

from glimpsezoo.data.catalogue import DATASETS
from glimpsezoo.data.config import task_of
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import DatasetSpec, load_string

MNISTS = [
    "mnist",
    "tmnist",
    "gtmnist",
    "jittered-mnist",
    "plain-mnist",
    "textured-mnist",
    "noisy-mnist",
    "translated-mnist",
    "cluttered-mnist",
]
NAMES = ["digits", *MNISTS, "tiny-imagenet", "imagenet100", "imagenet100-cmc", "imagenet", "hf:", "folder:"]


def test_it_has_every_data_set_of_the_papers_and_the_two_open_ones() -> None:
    assert sorted(spec.name for spec in DATASETS) == sorted(NAMES)


def test_reading_it_loads_nothing_heavy() -> None:
    code = "import sys, glimpsezoo.data.catalogue, glimpsezoo.data.config; print([m for m in sys.modules if m in {'torch', 'datasets'}])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("spec", DATASETS, ids=lambda spec: spec.name)
def test_a_card_is_complete_and_its_parts_can_be_imported(spec) -> None:
    for text in (spec.description, spec.license, spec.transform, spec.calibration):
        assert text
    assert spec.homepage.startswith("https://") or spec.name == "folder:"
    assert callable(load_string(spec.source))
    assert load_string(spec.config).parse({}, owner="data") is not None
    if not spec.prefix:
        assert set(spec.splits) == {"train", "calibration", "test"}
        assert len(set(spec.task.classes)) == len(spec.task.classes) > 1
        assert len(spec.task.mean) == len(spec.task.std) == spec.task.channels


def test_splits_of_one_source_add_up_to_what_it_publishes() -> None:
    published = {"tiny-imagenet": 100_000, "imagenet": 1_281_167, "imagenet100": 129_395, "imagenet100-cmc": 126_689, "mnist": 60_000}
    for name, count in published.items():
        splits = spec_of(name).splits
        assert splits["train"] + splits["calibration"] == count, name


def test_classes_of_a_subset_are_named_as_in_the_whole() -> None:
    whole = spec_of("imagenet").task.classes
    assert len(whole) == 1000
    assert list(whole) == sorted(whole)
    assert spec_of("imagenet100").task.classes == whole[:100]
    assert set(spec_of("imagenet100-cmc").task.classes) < set(whole)
    assert set(spec_of("tiny-imagenet").task.classes) < set(whole)
    assert whole[207] == "n02099601"  # golden retriever, as in every list of ImageNet's labels


@pytest.mark.parametrize(
    ("name", "settings", "side"),
    [
        ("noisy-mnist", {"size": "28"}, 28),
        ("cluttered-mnist", {"size": "100"}, 100),
        ("imagenet", {"size": "256"}, 256),
        ("imagenet", {}, 224),
    ],
)
def test_the_task_follows_the_size_without_data(name: str, settings: dict[str, str], side: int) -> None:
    task = task_of(spec_of(name), settings)
    assert task is not None
    assert task.image_size == (side, side)


@pytest.mark.parametrize("name", ["hf:owner/name", "folder:somewhere"])
def test_only_opening_tells_the_task_of_open_sets(name: str) -> None:
    assert task_of(spec_of(name), {"size": "64"}) is None


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("plain-mnist", {"size": "30"}, "expected 14, 28 or 56, got 30"),
        ("translated-mnist", {"size": "56"}, "expected 60 or 100, got 56"),
        ("mnist", {"size": "28"}, "no setting 'size'"),
        ("tiny-imagenet", {"colours": "sepia"}, "autoaugment"),
        ("digits", {"sead": "1"}, "did you mean 'seed'?"),
        ("folder:x", {"channels": "2"}, "1 or 3"),
    ],
)
def test_a_setting_that_cannot_be_is_named_in_one_line(name: str, settings: dict[str, str], words: str) -> None:
    with pytest.raises(GlimpseZooError) as error:
        task_of(spec_of(name), settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_split_is_answered_with_the_nearest() -> None:
    with pytest.raises(GlimpseZooError, match="did you mean 'test'"):
        opened("digits", "tset")


def test_the_former_name_of_a_license_still_works() -> None:
    with pytest.warns(DeprecationWarning, match="license"):
        spec = DatasetSpec(name="mine", description="Mine.", source="mine:open", licence="CC0-1.0")
    assert replace(spec, name="yours").license == "CC0-1.0"
