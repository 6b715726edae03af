"""Tables of images: which columns are read, labels of every type, images by path, configurations, missing files."""

import json
import math
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import encoded, flat, glyph, opened, right, save, write_parquet

from glimpsezoo.data.opening import told
from glimpsezoo.errors import GlimpseZooError

IMAGES = [encoded(flat(50)), encoded(flat(200))] * 10
CELLS = pa.array([{"bytes": content, "path": None} for content in IMAGES])
VIEWS = pytest.mark.skipif(int(pa.__version__.split(".")[0]) < 24, reason="pyarrow reads views from 24")
WAYS = [("test", False), ("test", True), ("train", False), ("train", True)]


def table(folder: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, split: str = "") -> Path:
    """Write the same table as train and test split, or as one of them. features: of `datasets`; by default Arrow's."""
    for name in (split,) if split else ("train", "test"):
        place = folder / f"{name}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        if features is None:
            pq.write_table(pa.table(columns), place)
        else:
            datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(place)
    return folder


def share(folder: Path, split: str = "test", dark: str = "dark", light: str = "light", **settings: Any) -> float:
    return right(opened("hf:me/set", split, folder, size=16, **settings), dark, light)


def refused(folder: Path, **settings: Any) -> str:
    with pytest.raises(GlimpseZooError) as raised:
        opened("hf:me/set", "test", folder, size=16, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


CLASSES = datasets.ClassLabel(names=["camera", "scanner"])
RECORDS = [{"bytes": content, "path": None} for content in IMAGES]


@pytest.mark.parametrize(("split", "streaming"), WAYS)
def test_a_column_of_the_right_name_goes_before_one_of_the_right_type(tmp_path: Path, split: str, streaming: bool) -> None:
    columns = {"image": RECORDS, "label": ["dark", "light"] * 10, "source": [0] * 10 + [1] * 10}
    table(tmp_path, columns, {"image": datasets.Image(), "label": datasets.Value("string"), "source": CLASSES})
    assert share(tmp_path, split, streaming=streaming) == 1
    assert opened("hf:me/set", "test", tmp_path, label="source").task.classes == ("camera", "scanner")
    assert "label from the column 'label'" in str(told(opened("hf:me/set", split, tmp_path, size=16)))


def test_an_image_column_of_another_type_is_not_replaced_by_a_mask(tmp_path: Path) -> None:
    columns = {"image": ["a.png"] * 20, "mask": RECORDS, "label": [0, 1] * 10}
    table(tmp_path, columns, {"image": datasets.Value("string"), "mask": datasets.Image(), "label": CLASSES})
    assert refused(tmp_path) == (
        "expected one encoded image per row in the column 'image', got string: name another column by --set data.image=COLUMN (mask can be)"
    )
    assert len(opened("hf:me/set", "test", tmp_path, image="mask")) == 20


@pytest.mark.parametrize(("split", "streaming"), WAYS)
@pytest.mark.parametrize(
    "labels",
    [
        *(pa.array([0, 1] * 10, kind) for kind in (pa.int8(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64())),
        *(pa.array([0.0, 1.0] * 10, kind) for kind in (pa.float32(), pa.float64())),
        pa.array([[0], [1]] * 10),
        pa.array([[0.0], [1.0]] * 10, pa.large_list(pa.float64())),
        pa.array([[0], [1]] * 10, pa.list_(pa.int64(), 1)),
        pa.array(["0", "1"] * 10),
        pa.array(["0", "1"] * 10, pa.large_string()),
        pytest.param(pa.array(["0", "1"] * 10, pa.string_view()), marks=VIEWS),
        pa.array(["0", "1"] * 10).dictionary_encode(),
    ],
    ids=lambda labels: str(labels.type),
)
def test_labels_of_every_type_that_means_a_class_are_read_alike(tmp_path: Path, labels: pa.Array, split: str, streaming: bool) -> None:
    table(tmp_path, {"image": CELLS, "label": labels})
    assert share(tmp_path, split, "0", "1", streaming=streaming) == 1


@pytest.mark.parametrize(("split", "streaming"), WAYS)
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pytest.param(pa.binary_view(), marks=VIEWS)], ids=str)
def test_images_of_every_type_of_bytes_are_read_alike(tmp_path: Path, kind: pa.DataType, split: str, streaming: bool) -> None:
    table(tmp_path, {"image": pa.array(IMAGES, kind), "label": pa.array(["dark", "light"] * 10)})
    assert share(tmp_path, split, streaming=streaming) == 1


@pytest.mark.parametrize(("split", "streaming"), WAYS)
@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), pa.float32(), pa.list_(pa.int64())], ids=str)
def test_numbers_that_are_not_counted_from_0_are_names_of_classes(tmp_path: Path, kind: pa.DataType, split: str, streaming: bool) -> None:
    stored = [[each] for each in [10, 9] * 10] if pa.types.is_list(kind) else [10, 9] * 10
    table(tmp_path, {"image": CELLS, "label": pa.array(stored, kind)})
    data = opened("hf:me/set", split, tmp_path, size=16, streaming=streaming)
    assert data.task.classes == ("9", "10")
    assert right(data, "10", "9") == 1
    assert "2 numbers in the column 'label', 9 to 10, are names" in str(told(data))
    table(tmp_path / "text", {"image": CELLS, "label": pa.array(["10", "9"] * 10)})
    other = opened("hf:me/set", split, tmp_path / "text", size=16, streaming=streaming)
    assert other.info.fingerprint != data.info.fingerprint
    assert "are names" not in str(told(other))


@pytest.mark.parametrize(
    "label",
    [
        {"num_classes": 3, "_type": "ClassLabel"},
        {"names": ["a", "a", "b"], "_type": "ClassLabel"},
        {"_type": "Blob"},
    ],
)
def test_features_that_the_library_cannot_read_name_the_file(tmp_path: Path, label: dict[str, Any]) -> None:
    metadata = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": label}}})}
    plain = pa.table({"image": CELLS, "label": pa.array([0, 1] * 10)})
    for split in ("train", "test"):
        pq.write_table(plain.replace_schema_metadata(metadata), tmp_path / f"{split}.parquet")
    assert re.match(r"expected features in the metadata of \w+.parquet that datasets .* can read, got others", refused(tmp_path))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("names", [True, False])
def test_a_class_without_an_image_is_an_error_however_the_files_are_read(tmp_path: Path, names: bool, streaming: bool) -> None:
    label = datasets.ClassLabel(names=["dark", "light", "grey"]) if names else datasets.Value("string")
    for split, stored in (("train", [0, 1, 2]), ("test", [0, 1])):
        labels = stored if names else [("dark", "light", "grey")[number] for number in stored]
        table(tmp_path, {"image": RECORDS[: len(stored)], "label": labels}, {"image": datasets.Image(), "label": label}, split)
    assert "got none of 1 ('grey')" in refused(tmp_path, streaming=streaming)
    assert len(opened("hf:me/set", "test", tmp_path, size=16, streaming=streaming, on_bad_image="skip")) == 2


@pytest.mark.parametrize(("split", "streaming"), WAYS)
def test_truth_values_are_classes(tmp_path: Path, split: str, streaming: bool) -> None:
    table(tmp_path, {"image": CELLS, "label": pa.array([False, True] * 10)})
    assert share(tmp_path, split, "False", "True", streaming=streaming) == 1


@pytest.mark.parametrize(("split", "streaming"), WAYS)
def test_a_list_of_one_named_class_is_that_class(tmp_path: Path, split: str, streaming: bool) -> None:
    features = {"image": datasets.Image(), "label": datasets.List(datasets.ClassLabel(names=["dark", "light"]))}
    table(tmp_path, {"image": RECORDS, "label": [[0], [1]] * 10}, features)
    assert share(tmp_path, split, streaming=streaming) == 1


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0, 1, None, -1] * 5),
        pa.array([0, 1, None, None] * 5, pa.uint8()),
        pa.array([0.0, 1.0, None, math.nan] * 5),
        pa.array([[0], [1], [], None] * 5),
    ],
)
def test_missing_labels_are_bad_images(tmp_path: Path, labels: pa.Array) -> None:
    table(tmp_path, {"image": CELLS, "label": labels})
    data = opened("hf:me/set", "test", tmp_path, size=16)
    assert data.labels().tolist() == [0, 1, -1, -1] * 5
    assert "a missing label" in str(next(iter(data.examples(2, 3))))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (pa.array([0.0, 0.5] * 10), "got 0.5"),
        (pa.array([[0, 1], [1]] * 10), "got a list of 2"),
        (pa.array([-1, 1] * 10), "got -1, which is a missing label, and 1"),
        (pa.array([-1.0, 1.0] * 10), "got -1, which is a missing label, and 1"),
        (pa.array([0, 40_000_000] * 10), "got 2 different ones up to 40000000"),
        (pa.array([{"a": 1}] * 20), "got struct<a: int64>"),
        (pa.array([None] * 20), "got only missing values"),
        (pa.array([b"x"] * 20), "got images"),
    ],
    ids=str,
)
def test_what_is_no_label_of_one_class_is_refused_where_columns_are_chosen(tmp_path: Path, labels: pa.Array, words: str) -> None:
    table(tmp_path, {"image": CELLS, "label": labels})
    said = refused(tmp_path)
    assert words in said
    assert "--set data.label=COLUMN" in said


@pytest.mark.parametrize("settings", [{}, {"image": "images"}])
def test_lists_of_images_are_refused(tmp_path: Path, settings: dict[str, str]) -> None:
    table(tmp_path, {"images": pa.array([[cell] for cell in CELLS.to_pylist()]), "label": pa.array([0, 1] * 10)})
    assert "in the column 'images', got lists of images" in refused(tmp_path, **settings)


def test_columns_are_checked_in_every_split_and_file(tmp_path: Path) -> None:
    table(tmp_path / "other", {"image": CELLS, "label": pa.array(["0", "1"] * 10)}, split="train")
    table(tmp_path / "other", {"image": CELLS, "kind": pa.array([0, 1] * 10)}, split="test")
    assert "expected the column 'kind' of the split 'train', got image, label" in refused(tmp_path / "other", label="kind")
    for shard, names in enumerate((["a", "b"], ["b", "a"])):
        write_parquet(tmp_path / "mixed" / f"test-0000{shard}-of-00002.parquet", IMAGES, [0, 1] * 10, names)
    assert "got columns of other types or other class names" in refused(tmp_path / "mixed")


class TestClassNames:
    def two(self, folder: Path, train: list[str] | None, test: list[str] | None, labels: list[Any]) -> Path:
        for split, names in (("train", train), ("test", test)):
            stored = [names.index(label) for label in labels] if names else labels
            write_parquet(folder / f"{split}.parquet", IMAGES, stored, names)
        return folder

    @pytest.mark.parametrize(("split", "streaming"), WAYS)
    def test_splits_that_number_their_classes_otherwise_are_mapped_by_name(self, tmp_path: Path, split: str, streaming: bool) -> None:
        self.two(tmp_path, ["dark", "light"], ["light", "dark"], ["dark", "light"] * 10)
        data = opened("hf:me/set", split, tmp_path, size=16, streaming=streaming)
        assert (right(data), data.task.classes) == (1, ("dark", "light"))
        assert "the labels of test are mapped by name" in str(told(data))

    @pytest.mark.parametrize(("train", "test"), [(["dark", "light", "other"], None), (None, ["dark", "light"])])
    def test_names_and_named_numbers_mean_the_same(self, tmp_path: Path, train: list[str] | None, test: list[str] | None) -> None:
        self.two(tmp_path, train, test, ["dark", "light"] * 10)
        assert share(tmp_path, on_bad_image="skip") == 1
        assert share(tmp_path, "train", on_bad_image="skip") == 1

    @pytest.mark.parametrize("named", ["train", "test"])
    @pytest.mark.parametrize(("names", "kind"), [(["0", "1"], pa.int64()), (["9", "8"], pa.float32())])
    def test_numbers_are_classes_whose_names_are_digits(self, tmp_path: Path, named: str, names: list[str], kind: pa.DataType) -> None:
        write_parquet(tmp_path / f"{named}.parquet", IMAGES, [0, 1] * 10, names)
        plain = pa.array([int(name) for name in names] * 10, kind)
        table(tmp_path, {"image": CELLS, "label": plain}, split="test" if named == "train" else "train")
        for split in ("train", "test"):
            assert share(tmp_path, split, *names) == 1
            assert opened("hf:me/set", split, tmp_path, size=16).labels().min() == 0

    def test_other_classes_are_refused(self, tmp_path: Path) -> None:
        self.two(tmp_path, ["dark", "light"], ["dark", "light", "grey"], ["dark", "light"] * 10)
        assert "expected the classes of train in test, got 'grey', which train does not name" in refused(tmp_path)

    def test_the_catalogues_order_of_classes_counts(self, tmp_path: Path) -> None:
        names = list(map(str, range(10)))
        write_parquet(tmp_path / "mnist" / "test-0.parquet", [encoded(glyph(k)) for k in range(10)], list(range(10)), names[::-1])
        write_parquet(tmp_path / "mnist" / "train-0.parquet", [encoded(glyph(k)) for k in range(10)], list(range(10)), names)
        assert opened("mnist", "test", tmp_path).labels().tolist() == list(range(10))[::-1]


@pytest.mark.parametrize(("split", "streaming"), WAYS)
@pytest.mark.parametrize("absolute", [True, False])
def test_images_by_path_are_read_alike_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, streaming: bool, absolute: bool
) -> None:
    folder = tmp_path / "set"
    save(flat(50), folder / "pictures" / "d.png")
    save(flat(200), folder / "pictures" / "l.png")
    start = f"{folder}/" if absolute else ""
    paths = [{"bytes": None, "path": f"{start}pictures/{name}.png"} for name in "dl"] * 10
    table(folder, {"image": pa.array(paths, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), "label": ["dark", "light"] * 10})
    monkeypatch.chdir(tmp_path)
    assert share(folder, split, streaming=streaming) == 1
    assert share(Path("set"), split, streaming=streaming) == 1
    before = opened("hf:me/set", split, folder, size=16, streaming=streaming).info.fingerprint
    save(flat(60), folder / "pictures" / "d.png")
    assert opened("hf:me/set", split, folder, size=16, streaming=streaming).info.fingerprint != before
    (folder / "pictures" / "d.png").unlink()
    bad = next(iter(opened("hf:me/set", split, folder, size=16, streaming=streaming).examples(0, 1)))
    assert f"row 0 of {split}.parquet: expected an image, got none that can be read at 'd.png' (No such file or directory)" in str(bad)


class TestCopies:
    """Local copies of sets with configurations, numbered files and READMEs."""

    def configured(self, folder: Path, extra: str = "") -> Path:
        readme = "---\nconfigs:\n"
        for config, names in (("derm", ["dark", "light"]), ("path", ["light", "dark"])):
            for split in ("train", "test"):
                write_parquet(folder / config / f"{split}-00000-of-00001.parquet", IMAGES, [0, 1] * 10, names)
            readme += f"- config_name: {config}\n  data_files:\n"
            readme += "".join(f"  - split: {split}\n    path: {config}/{split}-*\n" for split in ("train", "test"))
            readme += extra if config == "derm" else ""
        (folder / "README.md").write_text(readme + "---\n")
        return folder

    @pytest.mark.parametrize(("split", "streaming"), WAYS)
    def test_a_configuration_is_read(self, tmp_path: Path, split: str, streaming: bool) -> None:
        self.configured(tmp_path)
        assert share(tmp_path, split, subset="derm", streaming=streaming) == 1
        assert share(tmp_path, split, subset="path", streaming=streaming) == 0
        assert "configuration derm" in str(told(opened("hf:me/set", split, tmp_path, size=16, subset="derm")))

    def test_none_and_another_are_errors_that_list_them(self, tmp_path: Path) -> None:
        self.configured(tmp_path)
        assert refused(tmp_path).endswith("got none named: choose by --set data.subset=NAME, of derm, path")
        assert refused(tmp_path, subset="other").endswith("got 'other': choose by --set data.subset=NAME, of derm, path")

    def test_the_default_of_the_readme_is_taken_and_said(self, tmp_path: Path) -> None:
        self.configured(tmp_path, "  default: true\n")
        assert share(tmp_path) == 1
        assert "configuration derm" in str(told(opened("hf:me/set", "test", tmp_path, size=16)))

    def test_folders_of_several_sets_without_a_readme_are_not_mixed(self, tmp_path: Path) -> None:
        (self.configured(tmp_path) / "README.md").write_text("Notes on these data.\n")
        assert "got those of the folders derm, path: name one by --set data.subset=derm" in refused(tmp_path)
        assert share(tmp_path, subset="derm") == 1
        assert share(tmp_path, subset="path") == 0

    def test_a_missing_file_of_several_is_named(self, tmp_path: Path) -> None:
        for shard in (0, 1, 3):
            write_parquet(tmp_path / f"test-0000{shard}-of-00004.parquet", IMAGES, [0, 1] * 10, ["dark", "light"])
        said = "expected all files of the split 'test', got none called test-00002-of-00004.parquet: complete the copy of the data set"
        assert refused(tmp_path) == said
        write_parquet(tmp_path / "test-00002-of-00004.parquet", IMAGES, [0, 1] * 10, ["dark", "light"])
        assert share(tmp_path) == 1

    def test_the_readmes_names_of_plain_numbers_are_taken(self, tmp_path: Path) -> None:
        table(tmp_path, {"image": CELLS, "label": pa.array([0, 1] * 10)})
        names = "      class_label:\n        names:\n          '0': dark\n          '1': light\n"
        features = f"  - name: image\n    dtype: image\n  - name: label\n    dtype:\n{names}"
        (tmp_path / "README.md").write_text(f"---\ndataset_info:\n  features:\n{features}  splits:\n  - name: test\n---\n")
        assert share(tmp_path) == 1

    @pytest.mark.parametrize("split", ["train", "test"])
    @pytest.mark.parametrize("place", ["{split}/camera/{k}.png", "train_previews/{k}.png", "{k}.png"])
    def test_more_pictures_beside_the_tables_are_not_the_data(self, tmp_path: Path, split: str, place: str) -> None:
        table(tmp_path, {"image": CELLS, "label": pa.array(["dark", "light"] * 10)})
        before = opened("hf:me/set", split, tmp_path, size=16)
        for k in range(30):
            for name in ("train", "test"):
                save(flat(100), tmp_path / place.format(split=name, k=k))
        data = opened("hf:me/set", split, tmp_path, size=16)
        assert (data.task.classes, data.info.fingerprint) == (("dark", "light"), before.info.fingerprint)
        assert right(data) == 1

    def test_tables_whose_names_say_no_split_are_one_beside_pictures_whose_names_do(self, tmp_path: Path) -> None:
        columns = {"image": CELLS, "label": pa.array(["dark", "light"] * 10)}
        pq.write_table(pa.table(columns), tmp_path / "all.parquet")
        before = opened("hf:me/set", "train", tmp_path, size=16)
        for k in range(30):
            save(flat(100), tmp_path / "train" / "camera" / f"{k}.png")
        data = opened("hf:me/set", "train", tmp_path, size=16)
        assert (right(data), data.info.fingerprint) == (1, before.info.fingerprint)

    def test_a_revision_is_not_satisfied_by_a_folder(self, tmp_path: Path) -> None:
        commit = "0123456789abcdef0123456789abcdef01234567"
        table(tmp_path / "set", {"image": CELLS, "label": pa.array(["dark", "light"] * 10)})
        with pytest.raises(GlimpseZooError, match=r"expected the revision 0123.* of me/set, got --data-dir.* leave out @REVISION"):
            opened(f"hf:me/set@{commit}", "test", tmp_path)
        (tmp_path / "set").rename(tmp_path / commit)
        data = opened(f"hf:me/set@{commit}", "test", tmp_path / commit, size=16)
        assert (right(data), data.info.revision) == (1, commit)


class TestSplits:
    def of(self, folder: Path, *names: str) -> Path:
        readme = "---\nconfigs:\n- config_name: default\n  data_files:\n"
        for name in names:
            write_parquet(folder / f"{name}.parquet", IMAGES, [0, 1] * 10, ["dark", "light"])
            readme += f"  - split: {name}\n    path: {name}.parquet\n"
        (folder / "README.md").write_text(readme + "---\n")
        return folder

    def test_names_that_say_nothing_are_asked_for(self, tmp_path: Path) -> None:
        self.of(tmp_path, "fold1", "fold2")
        assert "got fold1, fold2: name them by --set data.train=fold1 --set data.test=fold2" in refused(tmp_path)
        assert share(tmp_path, train="fold1", test="fold2") == 1

    def test_what_is_not_read_is_said(self, tmp_path: Path) -> None:
        line = str(told(opened("hf:me/set", "test", self.of(tmp_path, "train", "test", "extra"), size=16)))
        assert line.endswith("left out: no split that is read: 1 (extra)")

    def test_a_test_split_alone_is_measured_whole(self, tmp_path: Path) -> None:
        self.of(tmp_path, "Test")
        assert len(opened("hf:me/set", "test", tmp_path, size=16)) == 20
        with pytest.raises(GlimpseZooError, match=r"got only Test: name one by --set data.train=NAME; --set data.train=Test "):
            opened("hf:me/set", "train", tmp_path)
        counts = [len(opened("hf:me/set", split, tmp_path, size=16, train="Test")) for split in ("train", "calibration", "test")]
        assert counts == [16, 0, 4]
