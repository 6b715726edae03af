"""A measure that a plugin registers: docs/hooks.md has its code, and nothing in the core knows it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from test_docs_hooks import code_files, install_glance

from glimpsezoo.evaluation.rows import read_rows
from glimpsezoo.zoo.results import read_result

pytestmark = pytest.mark.repository


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which the page's plugin is installed and a run of its measure is done."""
    folder = tmp_path_factory.mktemp("glance")
    install_glance(folder / "site")
    command(folder, "run", "glance", "--data", "shades", "--checkpoint", "none", "--measure", "accuracy,ood", "-o", "out")
    return folder


def command(folder: Path, *words: str) -> str:
    """Run `glimpsezoo WORDS` where the plugin is installed."""
    return python(folder, "-m", "glimpsezoo", *words)


def python(folder: Path, *words: str) -> str:
    path = os.pathsep.join([str(folder / "site"), *sys.path])
    env = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run([sys.executable, *words], check=False, cwd=folder, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def result(folder: Path) -> dict:
    return json.loads((folder / "out" / "glance" / "result.json").read_text())


def test_the_measure_takes_less_than_60_lines() -> None:
    assert len(code_files()["glimpsezoo_glance/ood.py"].strip().splitlines()) < 60


def test_its_section_is_the_area_under_the_curve(folder: Path) -> None:
    """Against the share of pairs of images in which the own one has the higher confidence."""
    unit = read_rows(folder / "out" / "glance" / "rows.parquet")
    assert unit is not None
    own = unit.rows.confidence[:, -1]
    code = (
        "import torch, json, glimpsezoo as gz; data = gz.open_data('digits'); "
        "model = gz.create_model('glance', data='shades'); "
        "images = torch.stack([data[k].image for k in range(len(data))]); "
        "images = torch.nn.functional.avg_pool2d(images, 4); "
        "print(json.dumps(gz.rollout(model, images).logits.softmax(-1).max(-1).values.tolist()))"
    )
    other = np.array(json.loads(python(folder, "-c", code)), np.float32)
    pairs = np.sign(own[:, None].astype(float) - other[None].astype(float))  # rounding moves few of them
    assert result(folder)["ood"]["data"] == "digits"
    assert result(folder)["ood"]["auroc"] == pytest.approx((1 + pairs.mean()) / 2, abs=1e-3)


def test_it_is_in_the_schema(folder: Path) -> None:
    schema = json.loads(python(folder, "-c", "from glimpsezoo.zoo.results import result_schema; print(result_schema())"))
    jsonschema.validate(result(folder), schema)
    assert "auroc" in schema["$defs"]["Ood"]["required"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**result(folder), "ood": {"data": "digits"}}, schema)


def test_people_see_it(folder: Path) -> None:
    shown = f"{result(folder)['ood']['auroc']:.3f}"
    again = command(folder, "run", "glance", "--data", "shades", "--checkpoint", "none", "--measure", "accuracy,ood", "-o", "out")
    assert "OOD AUROC" in again
    assert shown in again
    for form in ("table", "csv", "markdown"):
        assert shown in command(folder, "compare", "out", "--format", form)
    command(folder, "report", "out", "-o", "page.html", "--traces", "0")
    page = (folder / "page.html").read_text()
    assert "Out of distribution" in page
    assert shown in page
    assert "speed, ood" in " ".join(command(folder, "run", "--help").split())


def test_its_setting_is_checked(folder: Path) -> None:
    words = ("run", "glance", "--data", "shades", "--checkpoint", "none", "--measure", "ood", "--set", "ood.date=digits")
    with pytest.raises(AssertionError, match="ood has no setting 'date'"):
        command(folder, *words)


def test_a_result_with_it_is_read_where_the_plugin_is_not_installed(folder: Path) -> None:
    found = read_result((folder / "out" / "glance" / "result.json").read_bytes())
    assert found.ood == result(folder)["ood"]
