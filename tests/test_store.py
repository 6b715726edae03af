"""Finished units: complete or absent, measured by one process at a time, and named by everything that determines them."""

import importlib
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from row_files import write_rows
from torch import nn

import glimpsezoo
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.rows import Measured, PaperCosts, Rows, StoredUnit
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.hashing import module_hash, packages_behind, source_hash, unit_id, weights_hash

MEASURED = Measured(
    device="cpu",
    batch_size=64,
    workers=2,
    seconds=1.5,
    uncounted=("grid_sampler_2d",),
    paper_macs=PaperCosts(convention="paper", by_step=(1.0, 2.5)),
    skipped=("row 7 is no image",),
)


def some_rows(n: int = 50, steps: int = 2, seed: int = 0) -> Rows:
    draw = np.random.default_rng(seed)
    whole = {name: draw.integers(0, 9, (n, steps)) for name in ("prediction", "macs_by_step", "regions")}
    real = {name: draw.random((n, steps)) for name in ("confidence", "nll")}
    flat = {name: draw.integers(0, 9, n) for name in ("group", "label", "macs", "exit_step")}
    return Rows(
        id=np.arange(n) + (1 << 40), top5=draw.random((n, steps)) < 0.5, macs_by_phase=draw.integers(0, 9, (n, 5)), **whole, **real, **flat
    )


def assert_same(a: Rows, b: Rows) -> None:
    for f in fields(Rows):
        left, right = getattr(a, f.name), getattr(b, f.name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right, err_msg=f.name)


@pytest.mark.parametrize(("n", "steps"), [(50, 2), (1, 1), (0, 3)])
def test_a_unit_comes_back_as_it_was_written(tmp_path: Path, n: int, steps: int) -> None:
    folder, rows = UnitStore(tmp_path / "units"), some_rows(n, steps)
    assert folder.read("x") is None
    assert not folder.has("x")
    folder.write("x", StoredUnit(rows, MEASURED))
    found = folder.read("x")
    assert found is not None
    assert_same(found.rows, rows)
    assert found.measured == MEASURED
    assert folder.has("x")


def test_the_table_has_a_row_an_image_and_readable_columns(tmp_path: Path) -> None:
    rows = some_rows()
    write_rows(tmp_path / "rows.parquet", StoredUnit(rows, MEASURED))
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.num_rows == 50
    assert table["prediction"][3].as_py() == rows.prediction[3].tolist()
    assert table["id"][3].as_py() == (1 << 40) + 3


def test_ids_and_floats_are_laid_out_for_the_compressor(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", StoredUnit(some_rows(), MEASURED))
    group = pq.ParquetFile(tmp_path / "rows.parquet").metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    chosen = {c.path_in_schema: set(c.encodings) & {"DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT", "RLE_DICTIONARY"} for c in columns}
    assert chosen["id"] == {"DELTA_BINARY_PACKED"}
    assert chosen["confidence.list.element"] == chosen["nll.list.element"] == {"BYTE_STREAM_SPLIT"}
    assert chosen["prediction.list.element"] == chosen["exit_step"] == {"RLE_DICTIONARY"}


def test_rows_concatenate_in_order_with_none_among_them() -> None:
    a, b = some_rows(3, seed=1), some_rows(4, seed=2)
    both = Rows.concatenate([Rows.empty(2), a, b])
    assert_same(both, Rows(**{f.name: np.concatenate([getattr(a, f.name), getattr(b, f.name)]) for f in fields(Rows)}))
    assert (len(both), both.steps) == (7, 2)


def test_hits_compare_every_step_with_the_label() -> None:
    rows = some_rows()
    assert rows.hits.tolist() == [[bool(p == label) for p in steps] for steps, label in zip(rows.prediction, rows.label, strict=True)]


def test_a_file_that_is_cut_counts_as_absent(tmp_path: Path) -> None:
    folder, file = UnitStore(tmp_path), tmp_path / "x.parquet"
    folder.write("x", StoredUnit(some_rows(), MEASURED))
    whole = file.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert folder.read("x") is None
    file.write_bytes(whole)
    assert folder.read("x") is not None


def test_a_damaged_value_is_never_taken_for_a_measured_one(tmp_path: Path) -> None:
    folder, file, rows = UnitStore(tmp_path), tmp_path / "x.parquet", some_rows(400)
    folder.write("x", StoredUnit(rows, MEASURED))
    whole = file.read_bytes()
    places, absent = range(200, len(whole) // 3, 97), 0  # in the pages of values
    for place in places:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        found = folder.read("x")
        absent += found is None
        if found is not None:  # the damaged byte affects no value
            assert_same(found.rows, rows)
    assert absent > len(places) / 2


def test_a_finding_comes_back_and_one_that_is_damaged_counts_as_absent(tmp_path: Path) -> None:
    store = UnitStore(tmp_path)
    assert store.read_finding("verdict") is None
    store.write_finding("verdict", "größer")
    assert store.read_finding("verdict") == "größer"
    (tmp_path / "verdict.json").write_bytes(b"\xff\xfe\x80")
    assert store.read_finding("verdict") is None


def test_a_table_of_another_layout_counts_as_absent(tmp_path: Path) -> None:
    folder, file, rows = UnitStore(tmp_path), tmp_path / "x.parquet", some_rows()
    folder.write("x", StoredUnit(rows, MEASURED))
    table = pq.read_table(file)
    for other in (table.drop_columns(["nll"]), table.replace_schema_metadata({}), table.replace_schema_metadata({b"glimpsezoo": b"{}"})):
        pq.write_table(other, file)
        assert folder.read("x") is None


def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = UnitStore(tmp_path)
    folder.write("x", StoredUnit(some_rows(seed=1), MEASURED))
    real = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        real(path, content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    for name in ("x", "y"):
        with pytest.raises(KeyboardInterrupt):
            folder.write(name, StoredUnit(some_rows(seed=2), MEASURED))
    found = folder.read("x")
    assert found is not None
    assert_same(found.rows, some_rows(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = UnitStore(tmp_path / "file" / "units")
    with pytest.raises(GlimpseZooError, match="can be written") as error:
        folder.write("x", StoredUnit(some_rows(), MEASURED))
    assert "\n" not in str(error.value)
    with pytest.raises(GlimpseZooError, match="can be written"), folder.claim("x"):
        pass


def test_only_one_holds_a_claim(tmp_path: Path) -> None:
    one, other = UnitStore(tmp_path), UnitStore(tmp_path)
    with one.claim("x") as mine:
        assert mine
        with other.claim("x") as too, other.claim("y") as another:
            assert not too
            assert another
    with other.claim("x") as now:
        assert now


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    code = f"""
        import sys, time, pathlib
        from glimpsezoo.evaluation.store import UnitStore
        with UnitStore(pathlib.Path({str(tmp_path)!r})).claim("x") as mine:
            print(mine, flush=True)
            time.sleep(60)
    """
    root = Path(__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, cwd=root)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with UnitStore(tmp_path).claim("x") as mine:
            assert not mine
    finally:
        process.kill()
        process.communicate()
    with UnitStore(tmp_path).claim("x") as mine:
        assert mine


def test_a_units_name_follows_from_identity_and_images_alone() -> None:
    name = unit_id({"a": 1, "b": {"c": [1, 2]}}, 0, 1000)
    assert name == unit_id({"b": {"c": [1, 2]}, "a": 1}, 0, 1000)
    others = [
        unit_id({"a": 2, "b": {"c": [1, 2]}}, 0, 1000),
        unit_id({"a": 1, "b": {"c": [2, 1]}}, 0, 1000),
        unit_id({"a": 1, "b": {"c": [1, 2]}}, 0, 999),
        unit_id({"a": 1, "b": {"c": [1, 2]}}, 1000, 2000),
    ]
    assert len({name, *others}) == 5
    assert len(name) == 32


def test_the_hash_of_weights_sees_names_types_shapes_and_values() -> None:
    tensors = {"w": torch.arange(6.0), "n": torch.tensor(3), "h": torch.ones(2, dtype=torch.bfloat16), "z": torch.zeros(3)}
    same = weights_hash(tensors)
    assert weights_hash({name: tensors[name] for name in reversed(tensors)}) == same
    assert weights_hash({**tensors, "w": torch.arange(6.0).repeat_interleave(2)[::2]}) == same  # not contiguous
    assert weights_hash({"one": torch.ones(()).expand(1)}) == weights_hash({"one": torch.ones(1)})  # of stride 0
    others = [
        {**tensors, "w": tensors["w"].view(2, 3)},
        {**tensors, "z": torch.zeros(3, dtype=torch.int32)},  # with the same bytes
        {**tensors, "w": tensors["w"] + torch.tensor([0, 0, 0, 0, 0, 1e-6])},
        {**tensors, "n": torch.tensor(4)},
        {("v" if name == "w" else name): tensor for name, tensor in tensors.items()},
    ]
    assert len({same, *(weights_hash(other) for other in others)}) == 6


def test_the_hash_of_source_is_of_the_whole_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def hash_of(content: dict[str, str]) -> str:
        for name, text in content.items():
            path = tmp_path / "made_up_plugin" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        module_hash.cache_clear()
        return source_hash(importlib.import_module("made_up_plugin.model").Model)

    whole = {"__init__.py": "", "model.py": "class Model: pass", "layers/parts.py": "x = 1"}
    first = hash_of(whole)
    assert hash_of(whole) == first
    assert hash_of({"layers/parts.py": "x = 2"}) != first
    assert hash_of({"layers/parts.py": "x = 1", "readme.md": "not source"}) == first
    assert source_hash(UnitStore) == source_hash(Rows) != source_hash(nn.Linear)


def test_the_code_behind_a_class_is_that_of_the_classes_above_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made_up_parts.py").write_text("import torch\nclass Part(torch.nn.Module): pass")
    (tmp_path / "made_up_child.py").write_text("import made_up_parts\nclass Model(made_up_parts.Part): pass")
    child = importlib.import_module("made_up_child").Model
    first = source_hash(child)
    (tmp_path / "made_up_parts.py").write_text("import torch\nclass Part(torch.nn.Module): x = 1")
    module_hash.cache_clear()
    assert source_hash(child) != first
    assert packages_behind([child]) == ["made_up_child", "made_up_parts"]


def test_a_class_without_a_file_cannot_be_stored() -> None:
    made = type("Typed", (), {"__module__": "no_such_module"})
    with pytest.raises(GlimpseZooError, match="without a store"):
        source_hash(made)


def test_units_lie_in_the_folder_that_was_given(tmp_path: Path) -> None:
    folder = UnitStore(tmp_path / "deep" / "units")
    assert not (tmp_path / "deep").exists()  # created only when needed
    folder.write("x", StoredUnit(some_rows(), MEASURED))
    assert os.listdir(tmp_path / "deep" / "units") == ["x.parquet"]


@pytest.mark.parametrize(("file", "decides"), [("reports/page.py", False), ("core/rollout.py", True), ("conditions/attacks/apgd.py", True)])
def test_a_comment_invalidates_only_where_code_decides_an_outcome(tmp_path: Path, file: str, decides: bool) -> None:
    package = Path(glimpsezoo.__file__).parent
    shutil.copytree(package, tmp_path / "glimpsezoo", ignore=shutil.ignore_patterns("__pycache__"))

    def core_hash() -> str:
        code = "import glimpsezoo.hashing as h; print(h.core_hash())"
        return subprocess.check_output(
            [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, text=True
        )

    before = core_hash()
    with (tmp_path / "glimpsezoo" / file).open("a") as code:
        code.write("# a comment\n")
    assert (core_hash() != before) == decides
