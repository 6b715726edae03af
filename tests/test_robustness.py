"""Accuracy under corruptions: the mean over conditions and its interval."""

import numpy as np
import pytest
from result_files import rows

from glimpsezoo.measures.corrupted import corruptions_section
from glimpsezoo.measures.statistics import mean_share


def test_one_condition_has_one_interval() -> None:
    only = rows([1, 1, 0, 1] * 5)
    section = corruptions_section({"fog": {3: only}}, None, ["fog"])
    assert section.table["fog"][2] == section.mean == section.by_step[0]


def test_over_several_conditions_images_are_resampled_with_all_of_theirs() -> None:
    first, second = rows([1, 1, 0, 1] * 5), rows([1, 0, 0, 1] * 5)
    section = corruptions_section({"fog": {3: first}, "snow": {3: second}}, None, ["fog", "snow"])
    assert section.mean == mean_share(np.array([1, 0.5, 0, 1] * 5), first.group)
    assert section.mean.value == pytest.approx(0.625)
