"""`--config FILE`: a TOML file whose keys are the options of a command. Options of the command line win over it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.toml_text import flat, typed

ARGUMENT = "models"  # the key of the command's argument
SETTINGS = "set"  # the key of `--set`, a table
# What is done with results, and who measures them; not what they are.
OUTCOME = ("output", "store", "force", "fresh", "update-card", "engine", "ray-address", "json", "dry-run", "debug")
FILES = ("debug", "config", "grid", "shard")  # parameters of a command that no file has
_FOUND = "glimpsezoo.config"  # in the context's `meta`


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--config FILE` to a command that has the argument MODEL... and `--set`."""
    return click.option(
        "--config",
        metavar="FILE",
        is_eager=True,  # before the options whose defaults it gives
        expose_value=False,
        callback=_use,
        help="Read options from a TOML file: keys are names of options, and 'models'. Options that you type win.",
    )(command)


def _use(context: click.Context, parameter: click.Parameter, file: str | None) -> None:
    if file is None or context.resilient_parsing:
        return
    found = read_config(Path(file), context.command)
    context.meta[_FOUND] = found
    context.default_map = as_defaults(found, context.command)


def read_config(file: Path, command: click.Command) -> dict[str, Any]:
    """The values of a file: text, or a boolean for a flag; a list of models; texts KEY=VALUE for `set`. Raises `GlimpseZooError`."""
    from glimpsezoo.untrusted import toml_of

    return as_options(toml_of("--config", file), command, "--config")


def as_options(values: Mapping[str, Any], command: click.Command, source: str) -> dict[str, Any]:
    """Values of a TOML file as click takes them. source: the option that names the file, for errors. Raises `GlimpseZooError`."""
    options = {_key(each): each for each in command.params if each.name not in FILES}
    for key in values:
        if key not in options:
            raise GlimpseZooError(f"{source} expects options of {command.name!r} as keys, got {key!r}: {did_you_mean(key, options)}")
    return {key: _value(key, value, source, flag=bool(getattr(options[key], "is_flag", False))) for key, value in values.items()}


def as_defaults(found: Mapping[str, Any], command: click.Command) -> dict[str, Any]:
    """Options of a file by the names that click has for them."""
    by_key = {_key(option): option for option in command.params}
    return {str(by_key[key].name): value for key, value in found.items() if key not in {ARGUMENT, SETTINGS}}


def _value(key: str, value: Any, source: str, *, flag: bool) -> Any:
    """A value as click takes it. Raises `GlimpseZooError` for one of another kind than the option has."""
    if key == SETTINGS and isinstance(value, Mapping):
        return tuple(f"{name}={typed(each)}" for name, each in flat(value))
    if key == ARGUMENT and isinstance(value, list):
        return tuple(map(typed, value))
    if flag and isinstance(value, bool):
        return value
    if not flag and key not in {ARGUMENT, SETTINGS} and not isinstance(value, bool | Mapping):
        return typed(value)
    wanted = {SETTINGS: "a table", ARGUMENT: "a list"}.get(key, "true or false" if flag else "text, a number or a list")
    raise GlimpseZooError(f"{source} expects {wanted} for {key!r}, got {value!r:.80}: write it as --help says")


def _key(parameter: click.Parameter) -> str:
    """The key of an option or of the argument."""
    return ARGUMENT if isinstance(parameter, click.Argument) else max(parameter.opts, key=len).removeprefix("--")


def merged(models: tuple[str, ...], sets: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The models that were typed, else those of the file; and the settings of both, those that were typed last."""
    found = click.get_current_context().meta.get(_FOUND, {})
    typed = {text.partition("=")[0] for text in sets}
    return models or found.get(ARGUMENT, ()), (*(text for text in found.get(SETTINGS, ()) if text.partition("=")[0] not in typed), *sets)


def given_options(models: tuple[str, ...], sets: tuple[str, ...]) -> dict[str, Any]:
    """What the user gave, typed or in the file, by key: as `read_config` reads it again from TOML."""
    context, sources = click.get_current_context(), click.core.ParameterSource
    found: dict[str, Any] = {ARGUMENT: list(models)}
    for each in context.command.params:
        key, source = _key(each), context.get_parameter_source(str(each.name))
        if key == SETTINGS and sets:
            found[key] = {name: value for name, _, value in (text.partition("=") for text in sets)}
        elif key not in {ARGUMENT, SETTINGS} and each.expose_value and source in {sources.COMMANDLINE, sources.DEFAULT_MAP}:
            found[key] = context.params[str(each.name)]
    return found


def words_of(command: str, options: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The words that say without `--config` what a command was given; None if they were typed like that."""
    if _FOUND not in click.get_current_context().meta:
        return None
    return words_with(command, options)


def words_with(command: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that give a command these options."""
    words = [command]
    for key, value in options.items():
        if key == ARGUMENT:
            words += value
        elif key == SETTINGS:
            words += [word for name, text in value.items() for word in ("--set", f"{name}={text}")]
        elif value is True:
            words.append(f"--{key}")
        elif value is not False:
            words += [f"--{key}", str(value)]
    return tuple(words)
