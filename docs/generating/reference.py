"""Pages of the reference: commands, settings, result keys, catalogues and hooks."""

import ast
import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import AwareDatetime

from generating.checkout import distribution, ours
from generating.markdown import code, joined, settings_table, slug, table
from glimpsezoo.commands import cli, main
from glimpsezoo.conditions.attacks.settings import AttackSettings
from glimpsezoo.errors import counted
from glimpsezoo.measures import result as result_module
from glimpsezoo.measures.calibration import ExitSettings
from glimpsezoo.measures.corrupted import CorruptionSettings
from glimpsezoo.measures.gradient_masking import MaskingSettings
from glimpsezoo.measures.pairs import Comparison
from glimpsezoo.measures.policies import PoliciesSettings
from glimpsezoo.measures.smoothing import SmoothingSettings
from glimpsezoo.measures.speed import SpeedSettings
from glimpsezoo.schema import Section
from glimpsezoo.settings import settings_of
from glimpsezoo.specs import AttackSpec, CorruptionSpec, DatasetSpec, ExitRuleSpec, PolicySpec, Provenance, Spec, Task, load_string
from glimpsezoo.zoo import hooks
from glimpsezoo.zoo.plugins import HOOKS
from glimpsezoo.zoo.recipes import AdversarialRecipe, AugMixRecipe, PhaseRecipe, Recipe
from glimpsezoo.zoo.results import result_type


def pages() -> dict[str, str]:
    """The pages by their paths below docs/."""
    return {
        "reference/commands.md": commands_page(),
        "reference/settings.md": settings_page(),
        "reference/results.md": results_page(),
        "reference/data.md": data_page(),
        "reference/corruptions.md": corruptions_page(),
        "reference/attacks.md": attacks_page(),
        "reference/exit-rules.md": exit_rules_page(),
        "reference/policies.md": policies_page(),
        "reference/hooks.md": hooks_page(),
    }


def commands_page() -> str:
    exits = (inspect.getdoc(main) or "").removeprefix("Entry point. ")
    return joined("# Commands", exits, *map(command_section, cli.list_commands(click.Context(cli))))


def command_section(name: str) -> str:
    parent = click.Context(cli, info_name="glimpsezoo", **cli.context_settings)
    command = cli.get_command(parent, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(context.get_usage().removeprefix("Usage: ").split())
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    options = [option.get_help_record(context) for option in command.get_params(context) if isinstance(option, click.Option)]
    return joined(
        f"## `{name}`",
        code(usage, "text"),
        text,
        code(inspect.cleandoc(examples.partition("\n")[2])),
        table(("option", "meaning"), [(f"`{option}`", meaning) for option, meaning in filter(None, options)]),
    )


def data_page() -> str:
    return joined(
        "# Data sets",
        "What `--data` takes. Every choice is made on the calibration split, which shares no image with the test split.",
        *map(data_section, ours(DatasetSpec)),
    )


def data_section(spec: DatasetSpec) -> str:
    facts = {
        "images": images_text(spec.task) if spec.task else "as opened",
        "splits": ", ".join(f"{split} {count:,}" for split, count in spec.splits.items()) or "as opened",
        "transform": spec.transform,
        "calibration": spec.calibration,
        "license": spec.license,
        "from": spec.homepage,
    }
    rows = [row for row in facts.items() if row[1]]
    return joined(f"## {spec.title}", spec.description, table(("", ""), rows), settings_table(spec.config, prefix="data."))


def images_text(task: Task) -> str:
    height, width = task.image_size
    return f"{height} x {width} px, {counted(task.channels, 'channel')}, {len(task.classes)} classes"


def corruptions_page() -> str:
    rows = [(f"`{s.name}`", s.description, "yes" if s.benchmark else "no") for s in ours(CorruptionSpec)]
    return joined(
        "# Corruptions",
        "What `--measure` takes: `fog` is all five severities, `fog:3` one. The mean and mCE are over those of the benchmark. "
        "[Measuring](../measuring.md#corruptions) says what the numbers mean.",
        table(("corruption", "what it does", "of the benchmark"), rows),
        "## Settings",
        settings_table(CorruptionSettings, prefix="corruptions."),
    )


def attacks_page() -> str:
    return joined(
        "# Attacks",
        "What `--measure` takes: `pgd`, `pgd:4/255` for another eps, or `pgd:4/255:100` for a number of steps as well; of one attack, as "
        "many as you name. [Measuring](../measuring.md#attacks) says what the numbers mean.",
        "## All attacks",
        "`attacks.KEY` reaches every attack, `pgd.KEY` one.",
        settings_table(AttackSettings, prefix="attacks."),
        *map(attack_section, ours(AttackSpec)),
        "## Masking",
        "[What its checks ask](../measuring.md#can-the-attacked-accuracy-be-believed).",
        settings_table(MaskingSettings, prefix="masking."),
    )


def attack_section(spec: AttackSpec) -> str:
    """An attack, with the settings that are not every attack's."""
    common = {setting.key: (setting.type, setting.default) for setting in settings_of(AttackSettings)[1]}
    own = settings_table(spec.config, prefix=f"{spec.name}.", keep=lambda s: common.get(s.key) != (s.type, s.default))
    return joined(f"## `{spec.name}`", spec.description, own)


def exit_rules_page() -> str:
    rows = [(f"`{s.name}`", s.description, (inspect.getdoc(load_string(s.rule)) or "").partition("\n\n")[0]) for s in ours(ExitRuleSpec)]
    return joined(
        "# Exit rules",
        "`--set anytime.rule=NAME` takes those with a threshold: all but `fixed`. Thresholds are found on the calibration split, or given "
        "by `anytime.threshold`: see [early exits](../exits.md). In Python, `exit_rule` takes any rule; without one, it is `fixed`.",
        table(("rule", "what it does", "exactly"), rows),
        "## Settings",
        settings_table(ExitSettings, prefix="anytime."),
    )


def policies_page() -> str:
    rows = [(f"`{s.name}`", s.description, " ".join((inspect.getdoc(load_string(s.policy)) or "").split())) for s in ours(PolicySpec)]
    return joined(
        "# Policies",
        "What `--set policy=NAME` takes: what chooses where a model looks. `--measure policies` compares all that a model can follow: see "
        "[Measuring](../measuring.md#policies).",
        table(("policy", "what it does", "exactly"), rows),
    )


def settings_page() -> str:
    return joined(
        "# Settings",
        "What `--set KEY=VALUE` takes. A comma separates the items of a list, and `none` stands for nothing.",
        "- Models: on the page of [each model](../models/index.md); `MODEL.KEY` reaches one of several.\n"
        "- Data, `data.KEY`: at [each data set](data.md).\n"
        "- Attacks, `attacks.KEY`, `pgd.KEY` and `masking.KEY`: at [each attack](attacks.md).",
        "## Early exits",
        settings_table(ExitSettings, prefix="anytime."),
        "## Corruptions",
        settings_table(CorruptionSettings, prefix="corruptions."),
        "## Smoothing",
        settings_table(SmoothingSettings, prefix="smoothing."),
        "## Policies",
        settings_table(PoliciesSettings, prefix="policies."),
        "## Speed",
        settings_table(SpeedSettings, prefix="speed."),
        "## Training",
        "`train.KEY` changes a recipe: its batch size, seed and precision, or a key of each of its phases.",
        "### Recipe",
        settings_table(Recipe),
        "### Phase",
        settings_table(PhaseRecipe),
        "### Adversarial training",
        "A table `[phase.adversarial]`. `train.adversarial.KEY` makes or changes it, `train.adversarial=none` removes it. "
        "[Train for robustness](../robustness.md#train-for-it) says how it works.",
        settings_table(AdversarialRecipe, prefix="adversarial."),
        "### AugMix",
        "A table `[phase.augmix]`, likewise.",
        settings_table(AugMixRecipe, prefix="augmix."),
    )


def hooks_page() -> str:
    return joined(
        "# Hooks",
        "What a plugin may implement, and the specs that it returns. [Implement every hook](../hooks.md) has an example of each.",
        *(hook_section(name, kind) for name, kind in HOOKS.items()),
        "## Common to all",
        *map(fields_section, (Spec, Provenance, Task)),
    )


def hook_section(name: str, kind: type[Spec]) -> str:
    owners: dict[str, list[str]] = {}
    for spec in ours(kind):
        owners.setdefault(distribution(spec), []).append(f"`{spec.title}`")
    return joined(
        f"## `{name}`",
        code(f"def {name}() -> list[{kind.__name__}]:", "python"),
        inspect.getdoc(getattr(hooks, name)) or "",
        fields_section(kind),
        *(f"{owner} registers {', '.join(names)}." for owner, names in owners.items()),
    )


def fields_section(kind: type) -> str:
    """The fields of a dataclass that are not every spec's."""
    common = {field.name for field in dataclasses.fields(Spec)} if kind is not Spec and issubclass(kind, Spec) else set()
    fields = [field for field in dataclasses.fields(kind) if field.name not in common]
    about, meanings = inspect.getdoc(kind) or "", field_docstrings(kind)
    rows = [(f"`{field.name}`", type_text(field.type), default_of(field), meanings.get(field.name, "")) for field in fields]
    return joined(f"### {kind.__name__}", about, table(("field", "type", "default", "meaning"), rows))


def field_docstrings(kind: type) -> dict[str, str]:
    """Field -> the string below it, which `inspect` does not see."""
    (tree,) = ast.parse(inspect.cleandoc(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in pairwise(tree.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found


def default_of(field: "dataclasses.Field[Any]") -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{dict(field.default_factory())!r}`"
    return "required" if field.default is dataclasses.MISSING else f"`{field.default!r}`"


def results_page() -> str:
    """result.json and comparison.json: a section for each record, in the order in which a reader meets them."""
    _, conventions = (inspect.getdoc(result_module) or "").split("\n\n", 1)
    return joined(
        "# Result keys",
        f"{conventions} The same as a JSON Schema: [result.schema.json](../result.schema.json).",
        *map(record_section, dict.fromkeys([*met(result_type()), *met(Comparison)])),
    )


def met(annotation: Any) -> Iterator[type[Section]]:
    """A record and those in its keys, or those in a type."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
        for field in annotation.model_fields.values():
            yield from met(field.annotation)
    for argument in get_args(annotation):
        yield from met(argument)


def record_section(kind: type[Section]) -> str:
    fields = {field.alias or name: field for name, field in kind.model_fields.items()}
    rows = [(f"`{key}`", type_text(field.annotation), " ".join((field.description or "").split())) for key, field in fields.items()]
    return joined(f"## {kind.__name__}", inspect.getdoc(kind) or "", table(("key", "type", "meaning"), rows))


def type_text(annotation: Any) -> str:
    """A type in words, with a link to the section of a record."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:  # with a range, which the JSON Schema says
        return type_text(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin in {Union, UnionType}:
        return " or ".join(map(type_text, arguments))
    if origin is tuple:
        return f"list of {type_text(arguments[0])}" if arguments[-1] is Ellipsis else f"({', '.join(map(type_text, arguments))})"
    if origin is not None and issubclass(origin, Mapping):
        return "object" if arguments[1] is Any else f"object of {type_text(arguments[1])}"
    if issubclass(annotation, Section):
        return f"[{annotation.__name__}](#{slug(annotation.__name__)})"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", NoneType: "null", AwareDatetime: "date and time"}
    return names.get(annotation) or annotation.__name__
