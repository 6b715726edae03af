"""A measure that a plugin registers: docs/hooks.md has its code, and nothing in the core knows it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jsonschema
import numpy as np
import pytest
from row_files import read_rows
from test_docs_hooks import code_files, install_glance

from glimpsezoo.zoo.results import read_result

pytestmark = pytest.mark.repository


RUN = "run glance --data shades --checkpoint none --measure accuracy,ood -o out"
WRONG = "run glance --data shades --checkpoint none --measure ood --set ood.date=digits"
COMPARISONS = [f"compare out --format {form}" for form in ("table", "csv", "markdown")]
REPORT = "report out -o page.html --traces 0"
# Where the plugin is installed: all commands one after the other, as users give them, and then what the package itself says.
ALL_OF_THEM = f"""
import contextlib, io, json, shlex, torch
import glimpsezoo as gz
from glimpsezoo.commands import main
from glimpsezoo.zoo.results import result_schema

answers = {{}}
for line in {[RUN, *COMPARISONS, REPORT, "run --help", WRONG, RUN]}:
    out, err, status = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(shlex.split(line))
        except SystemExit as end:
            status = end.code
    answers[line] = (status or 0, out.getvalue(), err.getvalue())
data, model = gz.open_data("digits"), gz.create_model("glance", data="shades")
images = torch.nn.functional.avg_pool2d(torch.stack([data[k].image for k in range(len(data))]), 4)
confidence = gz.rollout(model, images).logits.softmax(-1).max(-1).values.tolist()
print(json.dumps({{"answers": answers, "confidence": confidence, "schema": result_schema()}}))
"""


class Seen(NamedTuple):
    """What is seen where the page's plugin is installed."""

    folder: Path
    answers: dict[str, tuple[int, str, str]]
    """Exit status, standard output and standard error of each command; of the repeated run, the second time."""
    confidence: list[float]
    """Of the model, for every image of the other data."""
    schema: str

    @property
    def result(self) -> dict:
        return json.loads((self.folder / "out" / "glance" / "result.json").read_text())

    def out(self, line: str) -> str:
        status, out, err = self.answers[line]
        assert status == 0, err
        return out


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("glance")
    install_glance(folder / "site")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), *sys.path])}
    done = subprocess.run([sys.executable, "-c", ALL_OF_THEM], check=False, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Seen(folder, **json.loads(done.stdout))


def test_the_measure_takes_less_than_60_lines() -> None:
    assert len(code_files()["glimpsezoo_glance/ood.py"].strip().splitlines()) < 60


def test_its_section_is_the_area_under_the_curve(seen: Seen) -> None:
    """Against the share of pairs of images in which the own one has the higher confidence."""
    unit = read_rows(seen.folder / "out" / "glance" / "rows.parquet")
    assert unit is not None
    own, other = unit.rows.confidence[:, -1], np.array(seen.confidence, np.float32)
    pairs = np.sign(own[:, None].astype(float) - other[None].astype(float))  # rounding moves few of them
    assert seen.result["ood"]["data"] == "digits"
    assert seen.result["ood"]["auroc"] == pytest.approx((1 + pairs.mean()) / 2, abs=1e-3)


def test_it_is_in_the_schema(seen: Seen) -> None:
    schema = json.loads(seen.schema)
    jsonschema.validate(seen.result, schema)
    assert "auroc" in schema["$defs"]["Ood"]["required"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**seen.result, "ood": {"data": "digits"}}, schema)


def test_people_see_it(seen: Seen) -> None:
    shown = f"{seen.result['ood']['auroc']:.3f}"
    again = seen.out(RUN)
    assert "OOD AUROC" in again
    assert shown in again
    assert "reused" in seen.answers[RUN][2]
    for line in COMPARISONS:
        assert shown in seen.out(line)
    seen.out(REPORT)
    page = (seen.folder / "page.html").read_text()
    assert "Out of distribution" in page
    assert shown in page
    assert "speed, ood" in " ".join(seen.out("run --help").split())


def test_its_setting_is_checked(seen: Seen) -> None:
    status, _, err = seen.answers[WRONG]
    assert status == 2
    assert "ood has no setting 'date'" in err


def test_a_result_with_it_is_read_where_the_plugin_is_not_installed(seen: Seen) -> None:
    found = read_result((seen.folder / "out" / "glance" / "result.json").read_bytes())
    assert found.ood == seen.result["ood"]
