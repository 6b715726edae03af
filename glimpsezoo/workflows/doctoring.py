"""`doctor`: what is installed and what works on this machine, a line each, as a bug report needs it."""

import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from glimpsezoo.errors import one_line, why_not
from glimpsezoo.evaluation.environment import PACKAGES, commit, cpu_name, device_name, package_version
from glimpsezoo.files import try_writing, user_folder
from glimpsezoo.zoo.plugins import registry

OTHERS = ("huggingface-hub", "pillow", "pyarrow", "safetensors", "simplejpeg")  # versions that results do not name but bugs depend on
SECONDS = 3  # to wait for the Hub


class Examined(NamedTuple):
    """One line of the answer."""

    subject: str
    found: str
    wrong: bool = False
    """Whether something that is installed or set does not work."""


def examine() -> Iterator[Examined]:
    """Every line, one after the other. Nothing in them names the user: paths are relative to the home folder, a token is never shown."""
    for subject, look in SUBJECTS.items():
        try:
            found = list(look())
        except Exception as error:  # one that cannot be looked at must not hide the others
            found = [Examined(subject, f"{type(error).__name__}: {one_line(error):.200}", wrong=True)]
        yield from found


def _versions() -> Iterator[Examined]:
    source = commit(Path(__file__).parent)
    yield Examined("glimpsezoo", f"{package_version('glimpsezoo')}{f' (checkout at {source})' if source else ''}")
    yield Examined("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    versions = [(name, package_version(name)) for name in (*PACKAGES[1:], *OTHERS)]
    yield Examined("packages", ", ".join(f"{name} {version}" for name, version in versions if version))


def _extras() -> Iterator[Examined]:
    """The optional dependencies of the core by the extra that has them, and what to install for those that are missing."""
    for requirement in requires("glimpsezoo") or ():
        wanted, _, extra = requirement.partition(";")
        if found := re.search(r"extra == ['\"]([\w-]+)['\"]", extra):
            name = re.split(r"[^\w.-]", wanted.strip())[0]
            version = package_version(name)
            yield Examined(f"extra {found[1]}", f"{name} {version}" if version else f"not installed (pip install '{wanted.strip()}')")


def _plugins() -> Iterator[Examined]:
    for plugin in registry().plugins:
        where = plugin.provenance
        why = next((spec.unavailable for spec in plugin.specs if spec.unavailable), "")
        found = plugin.error or f"{where.version}, registers {len(plugin.specs)} names{f' ({why})' if why else ''}"
        yield Examined(f"plugin {where.distribution}", found, wrong=bool(plugin.error))
    yield from (Examined("plugins", f"clash: {line}", wrong=True) for line in registry().clashes())


def _devices() -> Iterator[Examined]:
    import torch

    yield Examined("cpu", cpu_name())
    capability = torch.backends.cpu.get_cpu_capability()
    yield Examined("threads", f"{torch.get_num_threads()} of torch, with {capability}{_set('OMP_NUM_THREADS')}")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        yield Examined(f"cuda:{index}", f"{device_name(torch.device('cuda', index))}, {_size(free)} of {_size(total)} free")
    if not torch.cuda.is_available():
        yield Examined("cuda", f"none (torch was built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU'})")


def _hub() -> Iterator[Examined]:
    """Whether the Hub answers, as huggingface_hub is set here."""
    from huggingface_hub import constants, get_token

    token = "a token" if get_token() else "no token"
    if constants.HF_HUB_OFFLINE:
        yield Examined("hub", f"offline (HF_HUB_OFFLINE is set), {token}")
        return
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=SECONDS).close()
        found = "answers"
    except HTTPError as error:  # it answers
        found = f"answers ({error.code})"
    except Exception as error:  # no network, a proxy
        found = f"does not answer ({one_line(error):.80}): cards and data on this machine work"
    yield Examined("hub", f"{constants.ENDPOINT} {found}, {token}")


def _disk() -> Iterator[Examined]:
    from huggingface_hub import constants

    places = {"cards and units": (user_folder(), "GLIMPSEZOO_HOME"), "hub cache": (Path(constants.HF_HUB_CACHE), "HF_HOME")}
    for subject, (folder, variable) in places.items():
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        try:
            try_writing(folder)
            can = ""
        except OSError as error:
            can = f", cannot be written ({why_not(error)}): set {variable} to a folder that can"
        yield Examined(subject, f"{_short(folder)}, {_size(shutil.disk_usage(there).free)} free{can}", wrong=bool(can))


SUBJECTS: dict[str, Callable[[], Iterator[Examined]]] = {
    "versions": _versions,
    "extras": _extras,
    "plugins": _plugins,
    "devices": _devices,
    "hub": _hub,
    "disk": _disk,
}


def _set(variable: str) -> str:
    return f" ({variable}={os.environ[variable]})" if variable in os.environ else ""


def _short(folder: Path) -> str:
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)


def _size(count: int) -> str:
    """
    >>> _size(80_500_000_000)
    '80.5 GB'
    """
    return f"{count / 1e9:.1f} GB"
