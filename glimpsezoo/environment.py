"""Where something was measured: versions and devices by name, and nothing that tells whose machine it was."""

import ctypes
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from glimpsezoo.records import Environment

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)
PACKAGES = ("glimpsezoo", "torch", "torchvision", "timm", "numpy", "datasets", "scikit-learn")


def environment_section(device: torch.device) -> Environment:
    """The environment that measures on `device`. packages: those above and every installed plugin."""
    plugins = {point.dist.name for point in entry_points(group="glimpsezoo") if point.dist}
    versions = {name: package_version(name) for name in (*PACKAGES, *sorted(plugins))}
    versions["torch"] = torch.__version__  # which says what it was built for, too
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        device=device_name(device),
        threads=torch.get_num_threads(),
        packages={name: found for name, found in versions.items() if found},
        commit=commit(Path(__file__).parent),
    )


def device_name(device: torch.device) -> str:
    """'cpu', or the accelerator's kind and its maker's name."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return device.type


def package_version(name: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def cpu_name() -> str:
    """The processor's model, with the number of logical cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


@cache
def commit(folder: Path) -> str | None:
    """The commit that a folder's __init__.py is checked out from, '-dirty' behind it if the checkout was changed.

    None where git does not know the file, as in an installed wheel (which may well lie inside somebody else's checkout).
    """
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones, instead of giving it back to the system. For a process of one's own.

    Otherwise each large tensor on a CPU is mapped anew and cleared page by page: with 112 px and batches of 128, a third of a training
    step and half of an evaluation.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def channels_last(model: nn.Module) -> None:
    """Lay out the weights of convolutions with their channels last, which makes them faster, on a CPU as well (a third of the time less).

    `Module.to(memory_format=...)` does the same, and fails on a model with a tensor of rank 5, which a Conv3d has.
    """
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
