"""The page of the Python interface: every name that `glimpsezoo` exports, with its signature and its docstring, as the source has them."""

import ast
import dataclasses
import importlib
import inspect
import re
from itertools import pairwise
from textwrap import dedent
from typing import Any

import glimpsezoo
from generating.markdown import code, joined, prose, table

WIDTH = 100  # of a signature in one line
TITLES = {"users": "Use models", "authors": "Write a plugin", "authors of models": "Write a model"}


def pages() -> dict[str, str]:
    """The pages by their paths below docs/."""
    return {"reference/python.md": python_page()}


def python_page() -> str:
    sections = []
    for readers, modules in glimpsezoo._EXPORTS.items():
        title = TITLES.get(readers, f"Write {readers.removeprefix('authors of ')}")
        names = [name for exported in modules.values() for name in exported]
        sections += [f"## {title}", *(export_section(name, getattr(glimpsezoo, name)) for name in names)]
    return joined(
        "# Python",
        "Everything that `import glimpsezoo as gz` offers, in the order in which people need it. Names that are not on this page are not "
        "public. [Models](../models/index.md) and [hooks](hooks.md) have pages of their own.",
        *sections,
    )


def export_section(name: str, value: Any) -> str:
    heading = f"### `gz.{name}`"
    if inspect.isclass(value):
        return joined(heading, class_text(value))
    if callable(value) and hasattr(value, "__code__"):
        return joined(heading, code(signature(definition(value)), "python"), docstring(value))
    return joined(heading, *assignment(name))


def class_text(kind: type) -> str:
    """The constructor, the docstring, what its instances hold, and the public methods that the class itself defines."""
    tree = definition(kind)
    assert isinstance(tree, ast.ClassDef)
    methods = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    init = next((node for node in methods if node.name == "__init__"), None)
    bases = ", ".join(unparsed(base) for base in tree.bases)
    head = f"class {kind.__name__}({bases})" if bases else f"class {kind.__name__}"
    built = code(head if init is None else f"{head}\n{signature(init, called=kind.__name__, without='self')}", "python")
    rows = [(f"`{name}`", f"`{type_}`" if type_ else "", meaning) for name, type_, meaning in attributes(kind, tree, methods)]
    shown = [node for node in methods if not node.name.startswith("_") and not is_property(node)]
    return joined(
        built,
        docstring(kind),
        docstring(kind.__init__) if init is not None and kind.__init__.__doc__ else "",
        table(("attribute", "type", "meaning"), rows),
        *(joined(code(signature(node), "python"), text(ast.get_docstring(node) or "")) for node in shown),
        *(joined(code(signature(definition(method)), "python"), docstring(method)) for method in attached(kind)),
    )


def attributes(kind: type, tree: ast.ClassDef, methods: list[Any]) -> list[tuple[str, str, str]]:
    """(name, type, meaning) of the fields and properties that the class itself declares."""
    found, body = [], [*tree.body, ast.Pass()]
    for node, below in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_"):
            meaning = ast.literal_eval(below.value) if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            found.append((node.target.id, unparsed(node.annotation), " ".join(str(meaning).split())))
    for node in methods:
        if is_property(node) and not node.name.startswith("_"):
            found.append((node.name, unparsed(node.returns) if node.returns else "", " ".join((ast.get_docstring(node) or "").split())))
    return found


def unparsed(node: ast.AST) -> str:
    """Source, with the quotes of this project."""
    return ast.unparse(node).replace("'", '"')


def is_property(node: Any) -> bool:
    return any(isinstance(each, ast.Name) and each.id in {"property", "cached_property"} for each in node.decorator_list)


def definition(value: Any) -> Any:
    """The source of a class or a function as a tree."""
    return ast.parse(dedent(inspect.getsource(inspect.unwrap(value)))).body[0]


def signature(node: Any, *, called: str = "", without: str = "") -> str:
    """A signature as it is written in the source; each parameter has a line if they do not fit in one."""
    given = unparsed(node.args)
    parameters = [re.sub(r"(: .+?)=", r"\1 = ", each) for each in re.split(r", (?![^\[(]*[\])])", given) if each and each != without]
    returns = f" -> {unparsed(node.returns)}" if node.returns and not called else ""
    head = called or f"def {node.name}"
    line = f"{head}({', '.join(parameters)}){returns}"
    return line if len(line) <= WIDTH else f"{head}(\n" + "".join(f"    {each},\n" for each in parameters) + f"){returns}"


def assignment(name: str) -> tuple[str, str]:
    """What is assigned to a name that is neither a class nor a function, and the string below it."""
    module = importlib.import_module(glimpsezoo._MODULE_OF[name])
    body = [*ast.parse(inspect.getsource(module)).body, ast.Pass()]
    for node, below in pairwise(body):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            meaning = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            return code(unparsed(node), "python"), str(meaning)
    raise LookupError(f"expected an assignment to {name} in {module.__name__}, found none")


def attached(kind: type) -> list[Any]:
    """The public methods of a class that are functions of another module."""
    functions = (getattr(value, "__func__", value) for name, value in vars(kind).items() if not name.startswith("_"))
    return [each for each in functions if inspect.isfunction(each) and each.__module__ != kind.__module__]


def docstring(value: Any) -> str:
    own = inspect.cleandoc(value.__doc__ or "")
    written = f"{getattr(value, '__qualname__', '')}("  # by dataclasses, if nobody else did
    return "" if dataclasses.is_dataclass(value) and own.startswith(written) else text(own)


def text(own: str) -> str:
    """A docstring as Markdown; what a doctest runs is code."""
    parts = re.split(r"(?ms)^(>>> .*?)(?=^\s*$|\Z)", own)
    return joined(*(code(part.strip(), "pycon") if part.startswith(">>> ") else prose(part) for part in parts))
