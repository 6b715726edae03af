"""The Hub: finding files and columns, streaming and downloading, and a one-line error for each failure.

No test uses a network: the library that lists the files of a data set is replaced.
"""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import fsspec
import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from data_files import encoded, mnist, opened, picture, tiny_imagenet, write_parquet
from datasets.exceptions import DatasetNotFoundError

import glimpsezoo as gz
from glimpsezoo.data import batches, training_batches
from glimpsezoo.data.encoded import RECORDS, ParquetImages
from glimpsezoo.data.fingerprint import file_digest
from glimpsezoo.data.images import NaturalImages
from glimpsezoo.data.opening import told
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.training.job import TrainingJob, job_digest
from glimpsezoo.zoo.recipes import Recipe

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def listed(files: Any, features: Any = None) -> Any:
    """A listing as `datasets` returns it."""
    config = SimpleNamespace(data_files=files, name="default")
    return SimpleNamespace(config=config, builder_configs={}, info=SimpleNamespace(features=features))


def answer(monkeypatch: pytest.MonkeyPatch, reply: Any, features: Any = None) -> None:
    """Let the Hub's listing raise `reply`, or return a data set with these files by split."""

    def listing(path: str, **_: object) -> Any:
        if isinstance(reply, Exception):
            raise reply
        return listed(reply, features)

    monkeypatch.setattr(datasets, "load_dataset_builder", listing)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            DatasetNotFoundError("Dataset 'ILSVRC/imagenet-1k' is a gated dataset on the Hub. You must be authenticated to access it."),
            ["gated", "https://huggingface.co/datasets/ILSVRC/imagenet-1k", "hf auth login", "--data-dir"],
        ),
        (DatasetNotFoundError("Dataset 'ILSVRC/imagenet-1k' doesn't exist on the Hub or cannot be accessed."), ["gated", "hf auth login"]),
        (ConnectionError("Couldn't reach 'ILSVRC/imagenet-1k' on the Hub (ConnectError)"), ["cannot reach the Hub", "--data-dir"]),
        (
            ValueError("Config name is missing.\nPlease pick one among the available configs: ['a', 'b']\nExample"),
            ["--set data.subset=NAME, of a, b"],
        ),
        (ValueError("something\nelse"), ["expected a data set that can be read", "something else"]),
    ],
)
@pytest.mark.parametrize("name", ["imagenet", "imagenet100"])
def test_what_cannot_be_had_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, words: list[str]
) -> None:
    answer(monkeypatch, error)
    with pytest.raises(GlimpseZooError) as raised:
        opened(name, "test")
    assert all(word in str(raised.value) for word in words)
    assert "\n" not in str(raised.value)


def test_a_set_that_does_not_exist_is_not_called_gated(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, DatasetNotFoundError("Dataset 'me/nothing' doesn't exist on the Hub or cannot be accessed."))
    with pytest.raises(GlimpseZooError, match="expected a data set that can be read, got 'me/nothing'"):
        opened("hf:me/nothing", "test")


def test_without_a_network_the_error_offers_a_copy_on_disk() -> None:
    with pytest.raises(GlimpseZooError, match=r"cannot reach the Hub for ylecun/mnist .*--data-dir"):
        opened("mnist", "test")


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small Tiny ImageNet that the Hub lists at addresses of another file system; returns its copy on disk."""
    folder = tiny_imagenet(tmp_path / "tiny-imagenet")
    memory = fsspec.filesystem("memory")
    files: dict[str, list[str]] = {}
    for file in sorted((folder / "data").glob("*.parquet")):
        memory.pipe(f"/tiny/{file.name}", file.read_bytes())
        files.setdefault(file.name.partition("-")[0], []).append(f"memory://tiny/{file.name}")
    real = datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda path, **how: real(path, **how) if "/tmp" in path else listed(files))
    return folder


@pytest.mark.parametrize("split", ["test", "calibration", "train"])
def test_a_stream_gives_what_the_files_on_disk_give(remote: Path, split: str) -> None:
    streamed = opened("tiny-imagenet", split, streaming=True, on_bad_image="skip")
    local = opened("tiny-imagenet", split, remote, on_bad_image="skip")
    assert streamed.info.fingerprint == local.info.fingerprint
    pairs = zip(batches(streamed, 0, len(streamed), 16), batches(local, 0, len(local), 16), strict=True)
    assert all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_a_stream_reads_ranges_and_not_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "test.parquet", [np.random.default_rng(k).bytes(20_000) for k in range(100)], [0] * 100, group=5)
    memory = fsspec.filesystem("memory")
    memory.pipe("/ranges/test.parquet", (tmp_path / "test.parquet").read_bytes())
    kind, read = type(memory.open("/ranges/test.parquet", "rb")), 0
    original = kind.read

    def counted(self: Any, *arguments: Any) -> bytes:
        nonlocal read
        content = original(self, *arguments)
        read += len(content)
        return content

    monkeypatch.setattr(kind, "read", counted)
    rows = ParquetImages(["memory://ranges/test.parquet"], "image", "label")
    assert len(list(rows.at(range(50, 55)))) == 5
    assert 100_000 < read < 300_000  # of 2,000,000 bytes: one row group, and the file's metadata


def test_what_was_downloaded_before_is_found_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "datasets--ylecun--mnist"
    mnist(repository / "snapshots" / COMMIT, test=20)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    data = opened("mnist", "test")
    assert (len(data), data.info.revision) == (20, COMMIT)
    assert data.info.fingerprint == opened("mnist", "test", repository / "snapshots" / COMMIT).info.fingerprint


def test_a_file_of_the_hub_counts_by_the_hash_that_the_hub_has_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"what the file holds"
    (tmp_path / "copy.parquet").write_bytes(content)
    listed = {"lfs": {"sha256": hashlib.sha256(content).hexdigest()}, "blob_id": "another"}
    monkeypatch.setattr(huggingface_hub.HfFileSystem, "info", lambda *_: listed)
    assert file_digest([f"hf://datasets/me/set@{COMMIT}/test.parquet"]) == file_digest([str(tmp_path / "copy.parquet")])


class TestAnySet:
    """`hf:OWNER/NAME`, on copies of made-up sets."""

    def images(self, count: int) -> list[bytes]:
        return [encoded(picture(k, 16)) for k in range(count)]

    def test_columns_and_classes_are_found_from_the_features(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            write_parquet(tmp_path / f"{split}-0.parquet", self.images(6), [2, 0, 1] * 2, ("x", "y", "z"), image="img", label="kind")
        data = opened("hf:me/set", "test", tmp_path, size=16)
        assert data.task.classes == ("x", "y", "z")
        assert data.labels().tolist() == [2, 0, 1] * 2
        assert data.info.source == "hf:me/set"

    def test_the_revision_belongs_to_the_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def listing(path: str, *, name: str | None, revision: str | None) -> Any:
            asked.append((path, name, revision))
            raise DatasetNotFoundError("no")

        monkeypatch.setattr(datasets, "load_dataset_builder", listing)
        for name in ("hf:me/set@abc", "hf:me/set"):
            with pytest.raises(GlimpseZooError):
                opened(name, "test", subset="small")
        assert asked == [("hf://datasets/me/set", "small", "abc"), ("hf://datasets/me/set", "small", None)]

    def test_where_several_columns_fit_they_must_be_named(self, tmp_path: Path) -> None:
        features = datasets.Features(
            {"img": datasets.Image(), "fine": datasets.ClassLabel(names=["a", "b", "c"]), "coarse": datasets.ClassLabel(names=["d", "e"])}
        )
        rows = {"img": [{"bytes": c, "path": None} for c in self.images(4)], "fine": [0, 1, 2, 0], "coarse": [0, 1, 1, 0]}
        for split in ("train", "test"):
            datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}-0.parquet")
        with pytest.raises(GlimpseZooError, match=r"got fine, coarse: name it by --set data.label=COLUMN"):
            opened("hf:me/set", "test", tmp_path)
        assert opened("hf:me/set", "test", tmp_path, label="coarse").task.classes == ("d", "e")
        with pytest.raises(GlimpseZooError, match=r"--set data.label=middle expects a column, and there are img, fine, coarse"):
            opened("hf:me/set", "test", tmp_path, label="middle")

    @pytest.mark.parametrize("streaming", [True, False])
    @pytest.mark.parametrize(("stored", "classes"), [(["cat", "ant", "bee"], ("ant", "bee", "cat")), ([2, 0, 1], ("0", "1", "2"))])
    def test_classes_of_a_plain_column_are_what_occurs(
        self, tmp_path: Path, stored: list[Any], classes: tuple[str, ...], streaming: bool
    ) -> None:
        write_parquet(tmp_path / "train-0.parquet", self.images(6), stored * 2)
        write_parquet(tmp_path / "test-0.parquet", self.images(3), stored)
        data = opened("hf:me/set", "test", tmp_path, size=16, streaming=streaming)
        assert data.task.classes == tuple(classes)
        assert [data[k].label for k in range(3)] == data.labels().tolist() == [2, 0, 1]

    def test_a_set_of_one_split_gives_a_fifth_to_test_and_a_tenth_of_the_rest_to_calibrate(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "train-0.parquet", self.images(50), [0] * 25 + [1] * 25, ("a", "b"))
        rows = {}
        for split in ("test", "calibration", "train"):
            data = opened("hf:me/set", split, tmp_path, size=16)
            rows[split] = [data[k].id for k in range(len(data))]
        assert rows["test"] == list(range(4, 50, 5))
        assert rows["calibration"] == [11, 23, 36, 48]  # the 10th and 20th of the others of each class
        assert sorted(row for own in rows.values() for row in own) == list(range(50))

    @pytest.mark.parametrize("test", [True, False])
    def test_rows_that_go_through_the_classes_in_turn_leave_no_split_without_a_class(self, tmp_path: Path, test: bool) -> None:
        for name in ("train", "test") if test else ("train",):
            write_parquet(tmp_path / f"{name}-0.parquet", self.images(150), list(range(10)) * 15)
        for split in ("train", "calibration", "test"):
            data = opened("hf:me/set", split, tmp_path, size=16)
            assert set(data.labels().tolist()) == set(range(10))

    def test_a_class_that_is_too_small_for_a_test_row_is_not_dropped_in_silence(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "train-0.parquet", self.images(23), ["cat", "dog"] * 10 + ["bee"] * 3)
        with pytest.raises(GlimpseZooError, match=r"in the test split of hf:me/set, got none of 1 \('bee'\)"):
            opened("hf:me/set", "test", tmp_path, size=16)
        data = opened("hf:me/set", "test", tmp_path, size=16, on_bad_image="skip")
        assert (len(data), data.task.classes) == (4, ("bee", "cat", "dog"))
        assert "no test image of 'bee', which has fewer than 5" in str(told(data))

    @pytest.mark.parametrize("split", ["train", "calibration", "test"])
    def test_a_split_without_rows_is_empty_and_not_damaged(self, tmp_path: Path, split: str) -> None:
        for name, count in (("train", 0), ("test", 4)) if split != "test" else (("train", 4), ("test", 0)):
            write_parquet(tmp_path / f"{name}-0.parquet", self.images(count), [0, 1] * (count // 2), ("a", "b"))
        assert len(opened("hf:me/set", split, tmp_path, size=16)) == 0

    def test_too_few_rows_for_a_test_split_can_all_be_measured(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "train-0.parquet", self.images(8), ["cat", "dog"] * 4)
        with pytest.raises(GlimpseZooError, match=r"the largest of 2 classes \(cat, dog\) has 4; .* by --set data.test=train without"):
            opened("hf:me/set", "test", tmp_path, size=16)
        assert len(opened("hf:me/set", "test", tmp_path, size=16, test="train")) == 8

    def test_its_splits_can_be_named(self, tmp_path: Path) -> None:
        for split, count in (("train", 20), ("test", 6), ("validation", 4)):
            write_parquet(tmp_path / f"{split}-0.parquet", self.images(count), [0, 1] * (count // 2), ("a", "b"))
        assert len(opened("hf:me/set", "test", tmp_path)) == 6
        assert len(opened("hf:me/set", "test", tmp_path, test="validation")) == 4
        with pytest.raises(GlimpseZooError, match=r"the split 'other', got those of train, validation, test"):
            opened("hf:me/set", "test", tmp_path, test="other")

    def test_files_of_several_names_are_not_put_together_as_one_split(self, tmp_path: Path) -> None:
        for name in ("holdout", "development"):
            write_parquet(tmp_path / f"{name}-00000-of-00001.parquet", self.images(20), [0, 1] * 10, ("a", "b"))
        with pytest.raises(GlimpseZooError, match=r"got those of the names development, holdout: rename them to train-\* and test-\*"):
            opened("hf:me/set", "test", tmp_path)
        (tmp_path / "development-00000-of-00001.parquet").rename(tmp_path / "train-00000-of-00001.parquet")
        (tmp_path / "holdout-00000-of-00001.parquet").rename(tmp_path / "test-00000-of-00001.parquet")
        assert len(opened("hf:me/set", "test", tmp_path)) == 20

    def test_sets_of_other_files_than_parquet_are_read_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        snapshot = tmp_path / "datasets--me--set" / "snapshots" / COMMIT
        for split in ("train", "test"):
            for k in range(12):
                file = snapshot / split / "ab"[k % 2] / f"{k}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                picture(k, 16).save(file)
        (snapshot.parent.parent / "refs").mkdir()
        (snapshot.parent.parent / "refs" / "main").write_text(COMMIT)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        data = opened("hf:me/set", "test", size=16)
        assert data.task.classes == ("a", "b")
        assert data.labels().tolist() == [0] * 6 + [1] * 6
        assert data[6].label == 1
        assert len(opened("hf:me/set", "train", size=16)) == 12  # six of each class: none to calibrate on

        def fails(*_: object, **__: object) -> None:
            raise OSError("the table cannot be read")

        with monkeypatch.context() as patch:
            patch.setattr(datasets.DatasetBuilder, "as_dataset", fails)
            with pytest.raises(GlimpseZooError, match="expected a data set that can be read, got 'me/set': the table cannot be read"):
                opened("hf:me/set", "test", size=16)
        with pytest.raises(GlimpseZooError, match=r"expected Parquet files to stream, got 0.png: set data.streaming=false"):
            opened("hf:me/set", "test", streaming=True)

    def test_a_split_without_labels_is_told_from_an_empty_class(self, tmp_path: Path) -> None:
        for split, labels in (("train", [0, 1] * 10), ("test", [-1] * 4), ("validation", [0, 1])):
            write_parquet(tmp_path / f"{split}-0.parquet", self.images(len(labels)), labels, ("a", "b"))
        with pytest.raises(GlimpseZooError, match=r"expected labels in the split 'test' of hf:me/set, got none: .*--set data.test=NAME"):
            opened("hf:me/set", "test", tmp_path)
        assert len(opened("hf:me/set", "test", tmp_path, test="validation")) == 2


@pytest.mark.parametrize("damage", ["start", "end", "middle"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, damage: str) -> None:
    file = tiny_imagenet(tmp_path, train=10, valid=200) / "data" / "valid-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    if damage == "middle":
        content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    file.write_bytes({"start": b"nothing of that kind", "end": content[:-3], "middle": content}[damage])
    with pytest.raises(GlimpseZooError) as error:
        list(batches(opened("tiny-imagenet", "test", tmp_path, streaming=True, on_bad_image="skip"), 0, 200, 50))
    assert "valid-00000-of-00001.parquet, which cannot be read" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("damage", "says"), [("cut", "got train-00001-of-00002.parquet"), ("zeros", "got 'zh-plus/tiny-imagenet' (")])
def test_a_damaged_file_of_the_train_split_is_one_line_that_says_what_to_do(tmp_path: Path, damage: str, says: str) -> None:
    file = tiny_imagenet(tmp_path, train=400, valid=10) / "data" / "train-00001-of-00002.parquet"
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(content[:-3] if damage == "cut" else content[:4] + bytes(half - 4) + content[half:])
    with pytest.raises(GlimpseZooError) as error:
        opened("tiny-imagenet", "train", tmp_path)
    assert says in str(error.value)
    assert "again" in str(error.value)
    assert "error occurred while generating" not in str(error.value)
    assert "\n" not in str(error.value)


class TestOrderOfAStream:
    """A stream is shuffled in windows, so that each piece of a file is read once."""

    def test_windows_cover_all_rows_and_each_is_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("glimpsezoo.data.encoded.RECORDS", 4)
        monkeypatch.setattr("glimpsezoo.data.encoded.WINDOW", 3)
        content = [encoded(picture(k % 5, 8)) for k in range(120)]
        write_parquet(tmp_path / "train-0.parquet", content[:70], [0, 1] * 35, ("a", "b"), group=10)
        write_parquet(tmp_path / "train-1.parquet", content[70:], [0, 1] * 25, ("a", "b"), group=10)
        data = opened("hf:me/set", "train", tmp_path, size=8, streaming=True)
        assert isinstance(data, NaturalImages)
        rows = data.source.images
        assert isinstance(rows, ParquetImages)
        assert [row for window in rows.windows() for row in window] == list(range(120))

        order = data.training_order(0, 0)
        assert sorted(order.tolist()) == list(range(len(data)))
        assert order.tolist() == data.training_order(0, 0).tolist()
        assert order.tolist() != data.training_order(1, 0).tolist()
        assert order.tolist() != sorted(order.tolist())
        groups = []
        read = rows._read
        monkeypatch.setattr(rows, "_read", lambda group: groups.append(group) or read(group))
        found = torch.cat([batch.ids for batch in training_batches(data, 0, 0, 8, augment=False)])
        assert found.tolist() == data.source.chosen[order].tolist()
        assert len(groups) <= 12 + len(rows.windows())  # a group that is in two windows is read twice

    def test_a_training_that_streams_is_not_resumed_without_a_stream(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("glimpsezoo.data.encoded.RECORDS", 4)
        monkeypatch.setattr("glimpsezoo.data.encoded.WINDOW", 3)
        write_parquet(tmp_path / "train-0.parquet", [encoded(picture(k, 8)) for k in range(60)], [0, 1] * 30, ("a", "b"), group=10)
        kept, streamed = (opened("hf:me/set", "train", tmp_path, size=16, streaming=streaming) for streaming in (False, True))
        assert kept.info.fingerprint == streamed.info.fingerprint
        model = gz.create_model("cnn4", task=kept.task)
        recipe = Recipe.from_toml("batch_size = 8\n[[phase]]\nname = 'main'\nsteps = 2\noptimiser = 'sgd'\nlr = 0.1\n", name="toy")
        jobs = [
            TrainingJob(model=model, training_step=lambda *_: {}, recipe=recipe, train=data, calibration=data, folder=tmp_path)
            for data in (kept, streamed)
        ]
        assert len({job_digest(each) for each in jobs}) == 2


@pytest.mark.parametrize("group", [5, 1000])
def test_rows_can_be_read_in_any_order(tmp_path: Path, group: int) -> None:
    count = 3 * RECORDS + 10
    write_parquet(tmp_path / "test.parquet", [f"image {k}".encode() for k in range(count)], list(range(count)), group=group)
    rows = ParquetImages([str(tmp_path / "test.parquet")] * 2, "image", "label")
    assert len(rows) == 2 * count
    order = [0, 1, 2 * count - 1, 300, 299, 5, count, count - 1, 7, 2 * RECORDS, 2 * count - 2]
    assert [row.label for row in rows.at(order)] == [k % count for k in order]
    assert [row.image for row in rows.at(order)] == [f"image {k % count}".encode() for k in order]
