"""Write a new plugin from the template: a package that can be installed, has a tiny working model and passes its own tests."""

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.files import check_writable, output_to, write_whole
from glimpsezoo.specs import ModelSpec
from glimpsezoo.zoo.plugins import registry

SUFFIX = ".template"  # so that tools do not treat the files as code of the core


@dataclass(frozen=True)
class PluginNames:
    """The names of a new plugin."""

    distribution: str
    """The name for pip."""
    module: str
    """The name of the Python package."""
    model: str
    """The name that users type."""
    title: str
    """The name of the model's class."""

    @classmethod
    def of(cls, name: str) -> "PluginNames":
        """The names of a plugin called `name`. Raises `GlimpseZooError` if it is not a package name, or if it is taken.

        >>> PluginNames.of("glimpsezoo-two-looks")
        PluginNames(distribution='glimpsezoo-two-looks', module='glimpsezoo_two_looks', model='two-looks', title='TwoLooks')
        """
        if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
            raise GlimpseZooError(f"expected a package name (small letters, digits and single hyphens, a letter first), got {name!r}")
        distribution = name.replace("_", "-")
        module = distribution.replace("-", "_")
        own = {distribution} & {plugin.provenance.distribution for plugin in registry().plugins}  # the same plugin may be written again
        others = set(packages_distributions().get(module, ())) - own
        if others or module in {"glimpsezoo", "tests", *sys.stdlib_module_names} or keyword.iskeyword(module):
            raise GlimpseZooError(f"expected a name that Python does not use yet, got {name!r}: try 'glimpsezoo-{distribution}'")
        model = distribution.removeprefix("glimpsezoo-")
        for spec in registry().all(ModelSpec):
            if spec.name == model and spec.provenance and spec.provenance.distribution != distribution:
                raise GlimpseZooError(f"expected a new name for the model, got {model!r}, which {spec.provenance} has: choose another")
        return cls(distribution, module, model, _title(model))


def _title(model: str) -> str:
    """A name for the class: it starts with a letter, and the template does not use it for anything else."""
    title = "".join(part.capitalize() for part in model.split("-"))
    if title[0].isdigit():
        return f"Model{title}"
    used = re.findall(r"\b[A-Z]\w*", (files("glimpsezoo") / "template" / "_module_" / f"model.py{SUFFIX}").read_text(encoding="utf-8"))
    return f"{title}Model" if title in used else title


def plugin_files(names: PluginNames) -> dict[str, str]:
    """The content of every file of the plugin by its path, with '/' between the parts."""
    return dict(sorted(_rendered(files("glimpsezoo") / "template", "", names)))


def _rendered(folder: Traversable, path: str, names: PluginNames) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in folder.iterdir():
        inside = path + entry.name.replace("_module_", names.module).replace("_model_", names.model)
        if entry.is_dir():
            found += _rendered(entry, f"{inside}/", names)
        elif entry.name.endswith(SUFFIX):
            text = Template(entry.read_text(encoding="utf-8")).substitute(vars(names))
            found.append((inside.removesuffix(SUFFIX), text))
    return found


def write_plugin(name: str, folder: Path | None, *, force: bool = False) -> tuple[PluginNames, Path, list[str]]:
    """Write the plugin `name` into `folder` (default: a folder with that name). Returns its names, the folder and the files.

    force: write into an existing folder too, over files of the same names; other files stay. Raises `GlimpseZooError`.
    """
    names = PluginNames.of(name)
    folder = folder or Path(names.distribution)
    if folder.exists() and not force:
        raise GlimpseZooError(f"expected a new folder, got {str(folder)!r}, which exists: choose another by --output, or --force")
    check_writable(folder)
    texts = plugin_files(names)
    with output_to(folder):
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / path, text.encode())
    return names, folder, list(texts)
