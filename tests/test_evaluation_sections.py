"""From rows to result.json and comparison.json; FLOPs without data; the environment."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_models import TASK, Peek, PeekState, Tree, toy

from glimpsezoo.core.exits import Confidence
from glimpsezoo.core.macs import count_macs
from glimpsezoo.core.protocol import PaperMacs
from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.base import DataInfo
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import environment
from glimpsezoo.evaluation.environment import commit, environment_section
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import Unit, run_job
from glimpsezoo.evaluation.rows import Measured, PaperCosts, Rows
from glimpsezoo.measures.accuracy import accuracy_section
from glimpsezoo.measures.base import Bench
from glimpsezoo.measures.calibration import calibrate
from glimpsezoo.measures.costs import NoiseImages, missing_operations
from glimpsezoo.measures.flops import flops_of, flops_section
from glimpsezoo.measures.pairs import every_pair
from glimpsezoo.measures.result import Checkpoint
from glimpsezoo.measures.sections import data_section, declared_data_section, failures, model_section
from glimpsezoo.run.parse import parse_measures
from glimpsezoo.settings import Settings
from glimpsezoo.specs import Provenance, Task
from glimpsezoo.zoo.names import Assignments
from glimpsezoo.zoo.plugins import registry

MEASURED = Measured(device="cpu", batch_size=8, workers=0, seconds=1.0, uncounted=("tanh",), paper_macs=None)

# Four images of two source images over two steps, small enough to compute by hand.
ROWS = Rows(
    id=np.array([10, 11, 12, 13]),
    group=np.array([1, 1, 2, 2]),
    label=np.array([0, 1, 2, 0]),
    prediction=np.array([[0, 0], [0, 1], [0, 2], [1, 1]]),
    confidence=np.array([[0.5, 0.9], [0.5, 0.9], [0.5, 0.5], [0.5, 0.5]]),
    nll=np.array([[1.0, 0.5], [2.0, 0.5], [3.0, 1.0], [2.0, 2.0]]),
    top5=np.array([[True, True], [True, True], [False, True], [True, True]]),
    macs_by_step=np.array([[100, 200], [100, 300], [100, 400], [100, 100]]),
    regions=np.array([[1, 1], [1, 2], [1, 3], [1, 0]]),
    macs=np.array([200, 300, 400, 100]),
    macs_by_phase=np.array([[10, 100, 50, 30, 10], [10, 200, 50, 30, 10], [10, 300, 50, 30, 10], [10, 50, 25, 5, 10]]),
    exit_step=np.array([2, 2, 2, 1]),
)


def test_accuracy_of_every_step_worked_out_by_hand() -> None:
    found = accuracy_section(ROWS)
    first, last = found.steps
    assert [step.step for step in found.steps] == [1, 2]
    assert (first.top1.value, last.top1.value) == (0.25, 0.75)
    assert (first.top5.value, last.top5.value) == (0.75, 1.0)
    assert (first.nll.value, last.nll.value) == (2.0, 1.0)
    assert first.ece.value == pytest.approx(0.25)  # 0.5 said, 0.25 right
    assert last.ece.value == pytest.approx((2 * 0.1 + abs(2 * 0.5 - 1)) / 4)
    assert (first.macs, last.macs) == (100.0, 250.0)
    assert (first.regions_mean, last.regions_mean) == (1.0, 1.5)
    assert (found.top1, found.top5, found.nll, found.ece) == (last.top1, last.top5, last.nll, last.ece)
    assert (found.top1.n, found.top1.groups) == (4, 2)
    assert accuracy_section(ROWS) == found  # resampling is a function of the rows


def test_flops_worked_out_by_hand() -> None:
    other = MEASURED.model_copy(update={"uncounted": ("grid_sampler_2d", "tanh")})
    found = flops_section(ROWS, [MEASURED, other])
    assert found.n == 4
    assert found.images == "data"
    assert (found.macs.mean, found.macs.p50, found.macs.max) == (250.0, 250.0, 400.0)
    assert found.macs.p95 == pytest.approx(385.0)  # between the third and the fourth of four
    assert found.flops_mean == 500.0
    assert found.phases.model_dump() == {"start": 10.0, "sense": 162.5, "fuse": 43.75, "locate": 23.75, "classify": 10.0}
    assert sum(found.phases.model_dump().values()) == found.macs.mean
    assert [(step.step, step.macs) for step in found.steps] == [(1, 100.0), (2, 250.0)]
    assert found.uncounted == ("grid_sampler_2d", "tanh")
    assert found.paper_macs is None


def test_the_papers_cost_is_that_of_each_images_last_look() -> None:
    printed = MEASURED.model_copy(update={"paper_macs": PaperCosts(convention="paper", by_step=(1000.0, 3000.0))})
    found = flops_section(ROWS, [printed]).paper_macs
    assert found is not None
    assert (found.convention, found.value) == ("paper", (3 * 3000 + 1000) / 4)


def test_no_row_is_an_error_and_no_section() -> None:
    for section in (lambda: accuracy_section(Rows.empty(2)), lambda: flops_section(Rows.empty(2), [])):
        with pytest.raises(GlimpseZooError, match="at least one measured image"):
            section()


def rows_right(right: list[bool], ids: list[int]) -> Rows:
    one = {name: getattr(ROWS, name)[:1].repeat(len(ids), 0) for name in Rows.__dataclass_fields__}
    prediction = np.array([[9, 0] if r else [0, 9] for r in right])  # the first step is right where the last is wrong
    return Rows(**{**one, "id": np.array(ids), "group": np.array(ids), "prediction": prediction})


def test_models_are_paired_by_image_at_their_last_looks() -> None:
    a = rows_right([True, False, True, True, True], [1, 2, 3, 4, 5])
    b = rows_right([True, True, False, False, True], [9, 4, 3, 2, 1])  # in another order; image 5 is missing, 9 is new
    pairs = {(pair.a, pair.b): pair for pair in every_pair({"a": a, "b": b, "c": a})}
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")]
    pair = pairs["a", "b"]
    assert (pair.n, pair.only_a, pair.only_b) == (4, 1, 0)  # both right on 1 and 4, both wrong on 2; only a on 3
    assert pair.difference == 0.25
    assert pairs["b", "a"].difference == -0.25
    assert pairs["a", "c"].p == 1.0
    assert every_pair({"a": a}) == ()


def test_models_measured_on_other_images_are_not_compared() -> None:
    a = rows_right([True, False], [1, 2])
    relabelled = replace(a, label=np.array([1, 1]))
    regrouped = replace(a, group=np.array([7, 7]))
    for other in (rows_right([True], [3]), relabelled, regrouped):
        with pytest.raises(GlimpseZooError, match="same images"):
            every_pair({"a": a, "b": other})


class Config(Settings):
    width: int = 3


class Printed(Peek):
    def paper_macs(self, step: int) -> PaperMacs:
        return PaperMacs("ours", 10.0 * step)


def test_flops_need_no_data() -> None:
    model = toy(Printed)
    found = flops_of(model)
    whole = count_macs(lambda: rollout(model, torch.rand(1, 1, 16, 16)))
    assert found.macs.model_dump() == dict.fromkeys(("mean", "p50", "p95", "max"), float(whole.macs))
    assert (found.images, found.n) == ("noise", 8)
    assert found.steps[0].macs == count_macs(lambda: rollout(model, torch.rand(1, 1, 16, 16), steps=1)).macs
    assert found.paper_macs is not None
    assert found.paper_macs.value == 40.0
    grown = flops_of(toy(Tree), images=20).macs
    assert grown.max > grown.p50  # the cost of a tree depends on what it looks at


def test_flops_of_a_model_that_breaks_say_why() -> None:
    class Breaks(Peek):
        def classify(self, state: Any) -> Any:
            raise ValueError("broke")

    with pytest.raises(ValueError, match="broke"):
        flops_of(toy(Breaks))


def test_noise_images_fill_the_declared_size() -> None:
    data = NoiseImages(Task((8, 5), 3, ("a", "b")), 3)
    images = torch.stack([data[i].image for i in range(len(data))])
    assert images.shape == (3, 3, 8, 5)
    assert 0 < images.min() < 0.2 < 0.8 < images.max() < 1
    assert (images[0] != images[1]).all()


def test_sections_of_model_and_data() -> None:
    model = toy(Peek)
    model.config = Config(width=5)
    checkpoint = Checkpoint(uri="here", revision=None, sha256="00")
    found = model_section(model, "peek", Provenance("toys", "glimpsezoo-toys", "1.2"), checkpoint)
    # see 6 x 9 + 6, fuse_in 216 x 24 + 24, fuse_memory 24 x 24 + 24, where 24 x 2 + 2, and the head
    head = sum(p.numel() for p in model.get_submodule("head").parameters())
    assert found.parameters == 60 + 5208 + 600 + 50 + head
    assert (found.name, found.plugin, found.plugin_version, found.config) == ("peek", "glimpsezoo-toys", "1.2", {"width": 5})
    assert (found.steps, found.policy, found.sees, found.checkpoint) == (4, "learned", "full image", checkpoint)

    data = NoiseImages(TASK, 7)
    data.info = DataInfo(name="n", source="s", revision="r", fingerprint="f", split="test", transform="t")
    opened = data_section(data, skipped=2, conversions={"turned upright": 3}).model_dump()
    assert opened == {
        "name": "n",
        "source": "s",
        "revision": "r",
        "fingerprint": "f",
        "split": "test",
        "examples": 7,
        "skipped": 2,
        "image_size": (16, 16),
        "channels": 1,
        "classes": 3,
        "settings": None,
        "transform": "t",
        "conversions": {"turned upright": 3},
        "inferred": None,
    }
    declared = declared_data_section("n", TASK)
    assert (declared.examples, declared.fingerprint, declared.classes) == (0, None, 3)


def test_failed_units_are_named_on_one_line() -> None:
    (found,) = failures("accuracy", [Unit(0, 10, "x"), Unit(10, 20, "y", error=ValueError("two\nlines"))])
    assert found.model_dump() == {"measure": "accuracy", "unit": "y", "images": (10, 20), "error": "two lines"}


def test_the_environment_names_versions_and_no_place() -> None:
    found = environment_section(torch.device("cpu"))
    assert found.device == "cpu"
    assert found.threads == torch.get_num_threads()
    assert found.packages["torch"] == torch.__version__
    assert found.packages["numpy"] == np.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", found.python)
    written = json.loads(found.to_json())
    del written["cpu"]  # makers write slashes
    assert str(Path.home()) not in json.dumps(written)
    assert "/" not in json.dumps(written)


def test_the_commit_is_that_of_a_checkout_which_knows_the_package(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1")
    assert fresh_commit(package) is None  # not a checkout
    git("init", "--quiet")
    git("commit", "--allow-empty", "--quiet", "-m", "somebody else's")
    assert fresh_commit(package) is None  # a checkout that does not know the file: an environment inside a project
    git("add", "package/__init__.py")
    git("commit", "--quiet", "-m", "the package")
    head = git("rev-parse", "HEAD")
    assert fresh_commit(package) == head
    (package / "__init__.py").write_text("x = 2")
    assert fresh_commit(package) == f"{head}-dirty"


def fresh_commit(folder: Path) -> str | None:
    commit.cache_clear()
    return commit(folder)


def test_a_machine_without_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment._git(Path.cwd(), "rev-parse", "HEAD") is None


class Fourier(Peek):
    """Classifies with an operation without a formula."""

    def classify(self, state: PeekState) -> Tensor:
        return super().classify(replace(state, memory=torch.fft.rfft(state.memory, n=46).real))


def test_an_operation_without_a_formula_is_told_wherever_costs_are() -> None:
    model = toy(Fourier)
    found = run_job(Job(model, "fourier", NoiseImages(model.task, 8)))
    assert flops_section(found.rows, found.measured).missing == missing_operations(found.measured) == ("_fft_r2c",)
    assert flops_of(model).missing == ("_fft_r2c",)
    assert calibrate(model, NoiseImages(model.task, 8), Confidence).missing == ("_fft_r2c",)
    assert flops_of(toy(Peek)).missing == ()


def test_no_ratio_of_costs_is_made_of_a_lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def anytime(*kinds: type[Peek]) -> Any:
        """The anytime section of the first model in a run whose second model is the feed-forward baseline."""
        models = [toy(kind) for kind in kinds]
        data = NoiseImages(models[0].task, 8)
        bench = Bench(["model", "baseline"], models, data, data, 0, torch.device("cpu"), "fail", registry())
        bench.clean = {k: run_job(Job(model, "m", data)) for k, model in enumerate(models)}
        monkeypatch.setattr(bench, "feed_forward", lambda index: index == 1)
        (measure,) = parse_measures(["anytime"], Assignments())
        return measure.section(bench, 0, {}).equal_accuracy, bench.clean[0].rows

    for kinds in ((Peek, Fourier), (Fourier, Peek)):
        equal, _ = anytime(*kinds)
        assert (equal.macs_ratio, equal.missing) == (None, ("_fft_r2c",))
    equal, rows = anytime(Peek, Peek)  # the first step is as good as all of them
    assert equal.macs_ratio == pytest.approx(rows.macs_by_step[:, 0].mean() / rows.macs.mean())
