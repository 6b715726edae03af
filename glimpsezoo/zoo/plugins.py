"""The plugin host: finds plugins by entry point, loads each one separately, and looks up what is registered under a name.

If a plugin cannot be imported, or a hook raises or is misspelled, the error names the plugin and affects only what needs it. If two
plugins register the same name, looking up that name raises an error that names both.
"""

import inspect
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any, TypeVar

import pluggy

from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.specs import (
    AttackSpec,
    CorruptionSpec,
    DatasetSpec,
    ExitRuleSpec,
    ImporterSpec,
    LoggerSpec,
    MeasureSpec,
    ModelSpec,
    PaperSpec,
    PolicySpec,
    Provenance,
    Spec,
)
from glimpsezoo.zoo import builtin, hooks

T = TypeVar("T", bound=Spec)
HOOKS = {
    "register_models": ModelSpec,
    "register_datasets": DatasetSpec,
    "register_corruptions": CorruptionSpec,
    "register_attacks": AttackSpec,
    "register_exit_rules": ExitRuleSpec,
    "register_policies": PolicySpec,
    "register_importers": ImporterSpec,
    "register_loggers": LoggerSpec,
    "register_papers": PaperSpec,
    "register_measures": MeasureSpec,
}


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin on this machine."""

    provenance: Provenance
    specs: tuple[Spec, ...] = ()
    error: str | None = None
    """Why some or all of its specs are missing, in one line."""


@dataclass
class Registry:
    """All registered specs."""

    plugins: list[LoadedPlugin] = field(default_factory=list)

    def all(self, kind: type[T]) -> list[T]:
        """All specs of a kind in order of registration, including those with clashing names."""
        return [spec for plugin in self.plugins for spec in plugin.specs if isinstance(spec, kind)]

    def clashes(self) -> list[str]:
        """One line for each name that several plugins register."""
        lines = []
        for kind in HOOKS.values():
            names = [spec.name for spec in self.all(kind)]
            for name in sorted({n for n in names if names.count(n) > 1}):
                lines.append(self._clash(kind, name))
        return lines

    def find(self, kind: type[T], name: str) -> T:
        """The spec with this name, or with the longest prefix of it.

        Raises `GlimpseZooError` for an unknown name, and for a name that several plugins register.
        """
        exact = [spec for spec in self.all(kind) if spec.name == name and not spec.prefix]
        prefixes = [spec for spec in self.all(kind) if spec.prefix and name.startswith(spec.name) and name != spec.name]
        found = exact or [spec for spec in prefixes if len(spec.name) == max(len(p.name) for p in prefixes)]
        if len(found) > 1:
            raise GlimpseZooError(self._clash(kind, found[0].name))
        if not found:
            article = "an" if kind.noun[0] in "aeiou" else "a"
            raise GlimpseZooError(f"expected the name of {article} {kind.noun}, got {name!r}: {self.hint(kind, name)}")
        return found[0]

    def _clash(self, kind: type[Spec], name: str) -> str:
        who = [str(spec.provenance) for spec in self.all(kind) if spec.name == name]
        return f"the {kind.noun} {name!r} is registered by {' and by '.join(who)}: uninstall one of them"

    def hint(self, kind: type[Spec], name: str, others: Iterable[str] = ()) -> str:
        """What the error for an unknown name ends with: the nearest names of a kind and of `others`, and which plugins are broken."""
        broken = [plugin.provenance.plugin for plugin in self.plugins if plugin.error]
        why = f" (broken: {', '.join(broken)}; see 'glimpsezoo plugins')" if broken else ""
        return did_you_mean(name, [*(spec.title for spec in self.all(kind)), *others]) + why


@cache
def registry() -> Registry:
    """The registry of this process: the built-in specs, then those of the installed plugins in the order of their names."""
    return load_plugins(list(entry_points(group=hooks.GROUP)))


def load_plugins(points: Iterable[EntryPoint]) -> Registry:
    """Load the built-in specs and these entry points, each one separately."""
    found = Registry([_collect(builtin, Provenance("builtin", "glimpsezoo", version_of(None)))])
    for point in sorted(points, key=lambda p: (p.name, p.value)):
        provenance = Provenance(point.name, point.dist.name, version_of(point.dist)) if point.dist else Provenance(point.name, "?", "?")
        try:
            with redirect_stdout(sys.stderr):  # which may carry JSON that another program reads
                plugin = point.load()
        except (Exception, SystemExit) as error:  # a plugin may raise anything; the others must still load
            found.plugins.append(LoadedPlugin(provenance, error=f"cannot be imported: {one_line(error)}"))
            continue
        found.plugins.append(_collect(plugin, provenance))
    return found


def usable(spec: T) -> T:
    """The spec itself. Raises `GlimpseZooError` if it cannot be used on this machine."""
    if spec.unavailable:
        raise GlimpseZooError(spec.unavailable)
    return spec


def version_of(distribution: Distribution | None) -> str:
    """The version of a distribution; None means glimpsezoo itself."""
    try:
        return distribution.version if distribution else version("glimpsezoo")
    except PackageNotFoundError:  # a source tree that is not installed
        return "unknown"


class _Manager(pluggy.PluginManager):
    """Finds hooks without triggering a module's lazy `__getattr__`; pluggy itself does so from 1.7 on."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        try:
            inspect.getattr_static(plugin, name)
        except AttributeError:
            return None
        return super().parse_hookimpl_opts(plugin, name)


def _collect(plugin: Any, provenance: Provenance) -> LoadedPlugin:
    """Call each hook of one plugin (a module or an object) separately. Keep the specs of working hooks, record the errors of others."""
    manager = _Manager(hooks.GROUP)  # one per plugin, so that plugins cannot affect each other
    manager.add_hookspecs(hooks)
    try:
        manager.register(plugin, name=provenance.plugin)
    except Exception as error:  # for example a hook with arguments
        return LoadedPlugin(provenance, error=f"cannot be registered: {one_line(error)}")
    specs: list[Spec] = []
    errors: list[str] = []
    for caller in manager.get_hookcallers(plugin) or []:
        for implementation in caller.get_hookimpls():
            try:
                if caller.has_spec():
                    specs += _checked(caller.name, implementation.function(), provenance)
                elif not implementation.optionalhook:
                    errors.append(f"implements {caller.name!r}, which is not a hook: {did_you_mean(caller.name, HOOKS)}")
            except Exception as error:  # a plugin may raise anything
                errors.append(f"{caller.name} failed: {one_line(error)}")
    return LoadedPlugin(provenance, tuple(specs), "; ".join(errors) or None)


def _checked(hook: str, specs: Any, provenance: Provenance) -> list[Spec]:
    kind = HOOKS[hook]
    if not isinstance(specs, list) or not all(isinstance(spec, kind) for spec in specs):
        raise GlimpseZooError(f"expected a list of {kind.__name__}, got {specs!r:.80}")
    return [replace(spec, provenance=provenance) for spec in specs]
