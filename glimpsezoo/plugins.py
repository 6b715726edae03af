"""The plugin host: finds plugins by entry point, loads each by itself, and answers what is registered under a name.

A plugin that fails to import, raises in a hook or misspells one is reported by name and fails only what needs it; a name that two
plugins register is an error naming both, raised when that name is asked for.
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from glimpsezoo import builtin, hooks
from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.specs import DatasetSpec, ExitRuleSpec, ImporterSpec, ModelSpec, Provenance, Spec

T = TypeVar("T", bound=Spec)
HOOKS = {
    "register_models": ModelSpec,
    "register_datasets": DatasetSpec,
    "register_exit_rules": ExitRuleSpec,
    "register_importers": ImporterSpec,
}


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin found on this machine. error: why it registers nothing (or not all), as one line."""

    provenance: Provenance
    specs: tuple[Spec, ...] = ()
    error: str | None = None


@dataclass
class Registry:
    """Everything that was registered, by kind and name."""

    plugins: list[LoadedPlugin] = field(default_factory=list)

    def all(self, kind: type[T]) -> list[T]:
        """Specs of a kind in order of registration, names that clash included."""
        return [spec for plugin in self.plugins for spec in plugin.specs if isinstance(spec, kind)]

    def clashes(self) -> list[str]:
        """One line for every name that more than one plugin registers."""
        lines = []
        for kind in HOOKS.values():
            names = [spec.name for spec in self.all(kind)]
            for name in sorted({n for n in names if names.count(n) > 1}):
                lines.append(self._clash(kind, name))
        return lines

    def find(self, kind: type[T], name: str) -> T:
        """The spec that answers for `name`. Raises `GlimpseZooError` for an unknown name or one that two plugins register."""
        found = [spec for spec in self.all(kind) if spec.name == name and not spec.prefix]
        found = found or [spec for spec in self.all(kind) if spec.prefix and name.startswith(spec.name) and name != spec.name]
        if len(found) > 1:
            raise GlimpseZooError(self._clash(kind, found[0].name))
        if not found:
            raise GlimpseZooError(self._unknown(kind, name))
        return found[0]

    def _clash(self, kind: type[Spec], name: str) -> str:
        who = [str(spec.provenance) for spec in self.all(kind) if spec.name == name]
        return f"the {_noun(kind)} {name!r} is registered by {' and by '.join(who)}: uninstall one of them"

    def _unknown(self, kind: type[Spec], name: str) -> str:
        names = [spec.name + ("NAME" if spec.prefix else "") for spec in self.all(kind)]
        text = f"expected the name of a {_noun(kind)}, got {name!r}: {did_you_mean(name, names)}"
        broken = [plugin.provenance.plugin for plugin in self.plugins if plugin.error]
        return text + (f" (broken: {', '.join(broken)}; see 'glimpsezoo plugins')" if broken else "")


def _noun(kind: type[Spec]) -> str:
    return {ModelSpec: "model", DatasetSpec: "data set", ExitRuleSpec: "exit rule", ImporterSpec: "importer"}[kind]


@cache
def registry() -> Registry:
    """The registry of this process: built-ins, then every installed plugin in order of name."""
    return load_plugins(entry_points(group=hooks.GROUP))


def load_plugins(points: Iterable[EntryPoint]) -> Registry:
    """Load the built-ins and these entry points one by one."""
    manager = pluggy.PluginManager(hooks.GROUP)
    manager.add_hookspecs(hooks)
    found = Registry([_collect(manager, builtin, Provenance("builtin", "glimpsezoo", version_of(None)))])
    for point in sorted(points, key=lambda p: p.name):
        distribution = point.dist.name if point.dist else "?"
        provenance = Provenance(point.name, distribution, version_of(point.dist))
        try:
            module = point.load()
        except Exception as error:  # a plugin may fail in any way: it is named, and the others go on
            found.plugins.append(LoadedPlugin(provenance, error=f"cannot be imported: {one_line(error)}"))
            continue
        found.plugins.append(_collect(manager, module, provenance))
    return found


def version_of(distribution: Distribution | None) -> str:
    if distribution is not None:
        return distribution.version
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("glimpsezoo")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


def _collect(manager: pluggy.PluginManager, module: ModuleType | Any, provenance: Provenance) -> LoadedPlugin:
    """Register one plugin and call each of its hooks by itself."""
    marked = [name for name, value in inspect.getmembers(module) if getattr(value, f"{hooks.GROUP}_impl", None)]
    unknown = [name for name in marked if name not in HOOKS]
    if unknown:
        return LoadedPlugin(provenance, error=f"has no hook {unknown[0]!r} to implement: {did_you_mean(unknown[0], HOOKS)}")
    specs: list[Spec] = []
    try:
        manager.register(module, name=provenance.plugin)
        for hook, kind in HOOKS.items():
            for implementation in getattr(manager.hook, hook).get_hookimpls():
                if implementation.plugin is module:
                    specs += _checked(hook, kind, implementation.function(), provenance)
    except Exception as error:  # see load_plugins: isolated and named
        return LoadedPlugin(provenance, error=one_line(error))
    return LoadedPlugin(provenance, tuple(specs))


def _checked(hook: str, kind: type[Spec], specs: Any, provenance: Provenance) -> list[Spec]:
    if not isinstance(specs, list) or not all(isinstance(spec, kind) for spec in specs):
        raise GlimpseZooError(f"{hook} returns a list of {kind.__name__}, got {specs!r:.80}")
    return [replace(spec, provenance=provenance) for spec in specs]
