"""Settings of the process and the machine."""

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from glimpsezoo.evaluation.environment import channels_last

PAGES_FAULTED = """
import resource, sys, torch
from glimpsezoo.evaluation.environment import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.set_num_threads(1)


def fill(times):
    for _ in range(times):
        tensor = torch.empty(1 << 24).fill_(1)  # 64 MB: beyond what glibc keeps by itself
        del tensor


fill(16)  # until the heap has room for it
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill(4)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faulted(word: str) -> int:
    return int(subprocess.run([sys.executable, "-c", PAGES_FAULTED, word], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    assert faulted("keep") * 20 < faulted("leave")


def test_channels_come_last_in_convolutions_and_tensors_of_other_ranks_stay_as_they_are():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(2, 4, 3), nn.Flatten(1, 2), nn.Conv2d(16, 4, 3), nn.Flatten(), nn.LazyLinear(3))
    grey = nn.Conv2d(1, 4, 3)
    images = torch.rand(2, 2, 6, 8, 8)
    before = model(images)
    channels_last(model)
    assert model[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[0].weight.is_contiguous()
    torch.testing.assert_close(model(images), before)
    channels_last(grey)
    assert grey.weight.stride() == (9, 1, 3, 1)  # of one channel, both orders count as contiguous
    where = grey.weight.data_ptr()
    channels_last(grey)
    assert grey.weight.data_ptr() == where  # laid out already, so that what was made of it stays good
