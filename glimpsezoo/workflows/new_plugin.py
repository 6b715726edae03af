"""A new plugin from the template: a package that installs, has a working tiny model and passes its own tests."""

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
from glimpsezoo.files import write_whole
from glimpsezoo.plugins import registry
from glimpsezoo.specs import ModelSpec
from glimpsezoo.workflows.output import check_writable, unwritable

SUFFIX = ".template"  # so that nobody takes the files for code of the core


@dataclass(frozen=True)
class PluginNames:
    """distribution: what pip installs. module: what Python imports. model: what users type. title: the model's class."""

    distribution: str
    module: str
    model: str
    title: str

    @classmethod
    def of(cls, name: str) -> "PluginNames":
        """The names of a plugin called `name`. Raises `GlimpseZooError` for what is no package name, or one that others have.

        >>> PluginNames.of("glimpsezoo-two-looks")
        PluginNames(distribution='glimpsezoo-two-looks', module='glimpsezoo_two_looks', model='two-looks', title='TwoLooks')
        """
        if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
            raise GlimpseZooError(f"expected a package name (small letters, digits and single hyphens, a letter first), got {name!r}")
        distribution = name.replace("_", "-")
        module = distribution.replace("-", "_")
        own = {distribution} & {plugin.provenance.distribution for plugin in registry().plugins}  # written anew, not somebody else's
        others = set(packages_distributions().get(module, ())) - own
        if others or module in {"glimpsezoo", "tests", *sys.stdlib_module_names} or keyword.iskeyword(module):
            raise GlimpseZooError(f"expected a name that Python has no other use for, got {name!r}: try 'glimpsezoo-{distribution}'")
        model = distribution.removeprefix("glimpsezoo-")
        for spec in registry().all(ModelSpec):
            if spec.name == model and spec.provenance and spec.provenance.distribution != distribution:
                raise GlimpseZooError(f"expected a new model's name, got {name!r}, but {spec.provenance} has {model!r}: choose another")
        return cls(distribution, module, model, _title(model))


def _title(model: str) -> str:
    """A class's name, which begins with a letter and is no word that the template uses itself."""
    title = "".join(part.capitalize() for part in model.split("-"))
    if title[0].isdigit():
        return f"Model{title}"
    used = re.findall(r"\b[A-Z]\w*", (files("glimpsezoo") / "template" / "_module_" / f"model.py{SUFFIX}").read_text(encoding="utf-8"))
    return f"{title}Model" if title in used else title


def plugin_files(names: PluginNames) -> dict[str, str]:
    """The content of every file of the plugin by its path, '/' between the parts."""
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
    """Write the plugin `name` into `folder`, by default one of its name. Gives its names, the folder and the files.

    force: also into a folder that is there, over the files of the same names; others stay. Raises `GlimpseZooError`.
    """
    names = PluginNames.of(name)
    folder = folder or Path(names.distribution)
    if folder.exists() and not force:
        raise GlimpseZooError(f"expected a new folder, got {str(folder)!r}, which is there: choose another by --output, or --force")
    check_writable(folder)
    texts = plugin_files(names)
    try:
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / path, text.encode())
    except OSError as error:
        raise unwritable(folder, error) from None
    return names, folder, list(texts)
