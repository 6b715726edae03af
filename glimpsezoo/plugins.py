"""The plugin host: finds plugins by entry point, loads each by itself, and answers what is registered under a name.

A plugin that fails to import, raises in a hook or misspells one is reported by name and fails only what needs it; a name that two
plugins register is an error naming both, raised when that name is asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any, TypeVar

import pluggy

from glimpsezoo import builtin, hooks
from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.specs import AttackSpec, CorruptionSpec, DatasetSpec, ExitRuleSpec, ImporterSpec, ModelSpec, PaperSpec, Provenance, Spec

T = TypeVar("T", bound=Spec)
HOOKS = {
    "register_models": ModelSpec,
    "register_datasets": DatasetSpec,
    "register_corruptions": CorruptionSpec,
    "register_attacks": AttackSpec,
    "register_exit_rules": ExitRuleSpec,
    "register_importers": ImporterSpec,
    "register_papers": PaperSpec,
}
_NOUNS: dict[type[Spec], str] = {
    ModelSpec: "model",
    DatasetSpec: "data set",
    CorruptionSpec: "corruption",
    AttackSpec: "attack",
    ExitRuleSpec: "exit rule",
    ImporterSpec: "importer",
    PaperSpec: "paper",
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
        """The spec that answers for `name`, of several prefixes the longest.

        Raises `GlimpseZooError` for an unknown name or one that two plugins register.
        """
        exact = [spec for spec in self.all(kind) if spec.name == name and not spec.prefix]
        prefixes = [spec for spec in self.all(kind) if spec.prefix and name.startswith(spec.name) and name != spec.name]
        found = exact or [spec for spec in prefixes if len(spec.name) == max(len(p.name) for p in prefixes)]
        if len(found) > 1:
            raise GlimpseZooError(self._clash(kind, found[0].name))
        if not found:
            raise GlimpseZooError(self._unknown(kind, name))
        return found[0]

    def _clash(self, kind: type[Spec], name: str) -> str:
        who = [str(spec.provenance) for spec in self.all(kind) if spec.name == name]
        return f"the {_NOUNS[kind]} {name!r} is registered by {' and by '.join(who)}: uninstall one of them"

    def _unknown(self, kind: type[Spec], name: str) -> str:
        names = [spec.name + ("NAME" if spec.prefix else "") for spec in self.all(kind)]
        noun = _NOUNS[kind]
        text = f"expected the name of {'an' if noun[0] in 'aeiou' else 'a'} {noun}, got {name!r}: {did_you_mean(name, names)}"
        broken = [plugin.provenance.plugin for plugin in self.plugins if plugin.error]
        return text + (f" (broken: {', '.join(broken)}; see 'glimpsezoo plugins')" if broken else "")


@cache
def registry() -> Registry:
    """The registry of this process: built-ins, then every installed plugin in order of name."""
    return load_plugins(list(entry_points(group=hooks.GROUP)))


def load_plugins(points: Iterable[EntryPoint]) -> Registry:
    """Load the built-ins and these entry points one by one."""
    found = Registry([_collect(builtin, Provenance("builtin", "glimpsezoo", version_of(None)))])
    for point in sorted(points, key=lambda p: (p.name, p.value)):
        provenance = Provenance(point.name, point.dist.name, version_of(point.dist)) if point.dist else Provenance(point.name, "?", "?")
        try:
            plugin = point.load()
        except (Exception, SystemExit) as error:  # a plugin may fail in any way: it is named, and the others go on
            found.plugins.append(LoadedPlugin(provenance, error=f"cannot be imported: {one_line(error)}"))
            continue
        found.plugins.append(_collect(plugin, provenance))
    return found


def version_of(distribution: Distribution | None) -> str:
    """The version of a distribution; None stands for glimpsezoo itself."""
    try:
        return distribution.version if distribution else version("glimpsezoo")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


def _collect(plugin: Any, provenance: Provenance) -> LoadedPlugin:
    """Call each hook of one plugin (a module or an object) by itself. What fails is named; what works is registered."""
    manager = pluggy.PluginManager(hooks.GROUP)  # one for each: what a plugin does to it reaches no other
    manager.add_hookspecs(hooks)
    try:
        manager.register(plugin, name=provenance.plugin)
    except Exception as error:  # a hook that takes arguments, say
        return LoadedPlugin(provenance, error=f"cannot be registered: {one_line(error)}")
    specs: list[Spec] = []
    errors: list[str] = []
    for caller in manager.get_hookcallers(plugin) or []:
        for implementation in caller.get_hookimpls():
            try:
                if caller.has_spec():
                    specs += _checked(caller.name, implementation.function(), provenance)
                elif not implementation.optionalhook:
                    errors.append(f"implements {caller.name!r}, which is no hook: {did_you_mean(caller.name, HOOKS)}")
            except Exception as error:  # as above
                errors.append(f"{caller.name} failed: {one_line(error)}")
    return LoadedPlugin(provenance, tuple(specs), "; ".join(errors) or None)


def _checked(hook: str, specs: Any, provenance: Provenance) -> list[Spec]:
    kind = HOOKS[hook]
    if not isinstance(specs, list) or not all(isinstance(spec, kind) for spec in specs):
        raise GlimpseZooError(f"expected a list of {kind.__name__}, got {specs!r:.80}")
    return [replace(spec, provenance=provenance) for spec in specs]
