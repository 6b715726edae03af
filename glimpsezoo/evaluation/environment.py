"""The environment of a measurement: versions and device names, but nothing that identifies the machine."""

import ctypes
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.schema import Section

if TYPE_CHECKING:  # results are also read without importing torch
    import torch
    from torch import nn

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)
PACKAGES = ("glimpsezoo", "torch", "torchvision", "timm", "numpy", "datasets")


class Environment(Section):
    """The environment of a run."""

    python: str
    """Version of Python."""
    platform: str
    """The operating system and the kind of processor."""
    cpu: str
    """The processor's model and number of cores."""
    device: str
    """The device that computed: 'cpu', or the accelerator's kind and name."""
    threads: int
    """Threads of torch."""
    packages: dict[str, str]
    """Name -> version."""
    commit: str | None
    """Git commit of the checkout, followed by '-dirty' if it has changes; null if installed from a wheel."""


def environment_section(device: "torch.device") -> Environment:
    """The environment of a run on `device`. `packages` has `PACKAGES` and all installed plugins."""
    import torch

    plugins = {point.dist.name for point in entry_points(group="glimpsezoo") if point.dist}
    versions = {name: package_version(name) for name in (*PACKAGES, *sorted(plugins))}
    versions["torch"] = torch.__version__  # also names the platform that it was built for
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        device=device_name(device),
        threads=torch.get_num_threads(),
        packages={name: found for name, found in versions.items() if found},
        commit=commit(Path(__file__).parent),
    )


def usable_device(name: "str | torch.device") -> "torch.device":
    """The torch device of this name. Raises `GlimpseZooError` if the machine does not have it."""
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # which 'meta' cannot answer: its tensors have no values
    except Exception as error:  # torch raises various errors for missing devices
        raise GlimpseZooError(f"expected a device of this machine (cpu, cuda, mps), got {str(name)!r}: {one_line(error):.120}") from None
    return device


def device_name(device: "torch.device") -> str:
    """'cpu', or the accelerator's kind and product name."""
    import torch

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
    """The checked-out commit of a folder's __init__.py, followed by '-dirty' if the checkout has changes.

    None if git does not track the file, as in an installed wheel (which may lie inside an unrelated checkout).
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
    """Let glibc reuse the memory of freed tensors instead of returning it to the system. Call it only in a process of your own.

    Otherwise each large CPU tensor is mapped again and cleared page by page, which takes a third of a training step and half of an
    evaluation at 112 px with batches of 128.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def channels_last(model: "nn.Module") -> None:
    """Store the weights of convolutions channels-last, which saves a third of the time, also on a CPU.

    `Module.to(memory_format=...)` does the same, but fails for a model with a tensor of rank 5, such as that of a Conv3d.
    """
    import torch

    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.ndim != 4:
            continue
        _, channels, height, width = tensor.shape
        if tensor.stride() != (height * width * channels, 1, width * channels, channels):  # otherwise the arranged weights stay good
            tensor.data = tensor.data.clone(memory_format=torch.channels_last)
