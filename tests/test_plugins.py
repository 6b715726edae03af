"""The plugin host: what a plugin registers is found with its provenance, and a plugin that is wrong fails alone and by name.

The plugins of these tests are installed for real: a module and a dist-info folder on the path.
"""

from importlib.metadata import distributions
from pathlib import Path
from textwrap import dedent

import pytest

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import DatasetSpec, ExitRuleSpec, ImporterSpec, ModelSpec, Spec, Task, load_string
from glimpsezoo.zoo import builtin, hooks
from glimpsezoo.zoo.plugins import HOOKS, LoadedPlugin, Registry, load_plugins, registry, version_of

HEAD = "from glimpsezoo.zoo.hooks import hookimpl\nfrom glimpsezoo.specs import DatasetSpec, ExitRuleSpec, ImporterSpec, ModelSpec\n"


def model(name: str, **more: object) -> str:
    return f"ModelSpec(name={name!r}, description='', model='m:M', config='c:C', **{more!r})"


def registers(*names: str) -> str:
    return f"@hookimpl\ndef register_models():\n    return [{', '.join(model(name) for name in names)}]\n"


class Folder:
    """A folder of installed distributions, each with one plugin."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, name: str, code: str, *, version: str = "1.0", point: str | None = None) -> None:
        module = f"fake_{name}_{self.path.name.replace('-', '_')}"  # no test meets another's module
        (self.path / f"{module}.py").write_text(HEAD + dedent(code))
        info = self.path / f"glimpsezoo_{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: glimpsezoo-{name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[glimpsezoo]\n{point or name} = {module}\n")

    def load(self) -> Registry:
        return load_plugins([point for found in distributions(path=[str(self.path)]) for point in found.entry_points])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.syspath_prepend(tmp_path)
    return Folder(tmp_path)


def plugin_of(found: Registry, name: str) -> LoadedPlugin:
    return next(plugin for plugin in found.plugins if plugin.provenance.plugin == name)


def names(plugin: LoadedPlugin) -> list[str]:
    return [spec.name for spec in plugin.specs]


# What is right is found


def test_built_in_parts_come_through_the_same_hooks() -> None:
    found = load_plugins([])
    assert [plugin.provenance.plugin for plugin in found.plugins] == ["builtin"]
    assert found.plugins[0].error is None
    assert found.find(DatasetSpec, "digits").provenance == found.plugins[0].provenance
    assert load_string(found.find(ExitRuleSpec, "confidence").rule)(0.5).parameters == {"threshold": 0.5}
    assert {name for name in dir(builtin) if hasattr(getattr(builtin, name), "glimpsezoo_impl")} <= set(HOOKS)


def test_every_hook_that_is_specified_is_called() -> None:
    specified = {name for name in dir(hooks) if hasattr(getattr(hooks, name), "glimpsezoo_spec")}
    assert specified == set(HOOKS)


def test_specs_of_every_kind_are_found_with_their_provenance(folder: Folder) -> None:
    folder.install(
        "all",
        """
        @hookimpl
        def register_models():
            return [ModelSpec(name='m', description='a model', model='m:M', config='c:C')]
        @hookimpl
        def register_datasets():
            return [DatasetSpec(name='d', description='', source='s:S')]
        @hookimpl
        def register_exit_rules():
            return [ExitRuleSpec(name='e', description='', rule='r:R')]
        @hookimpl
        def register_importers():
            return [ImporterSpec(name='m', description='', importer='i:I')]
        """,
        version="2.3",
    )
    found = folder.load()
    kinds: dict[type[Spec], str] = {ModelSpec: "m", DatasetSpec: "d", ExitRuleSpec: "e", ImporterSpec: "m"}
    for kind, name in kinds.items():
        spec = found.find(kind, name)
        assert type(spec) is kind
        assert spec.provenance is not None
        assert (spec.provenance.plugin, str(spec.provenance)) == ("all", "glimpsezoo-all 2.3")
    assert found.find(ModelSpec, "m").description == "a model"
    assert not found.clashes()


def test_plugins_are_loaded_in_order_of_name(folder: Folder) -> None:
    for name in ("b", "c", "a"):
        folder.install(name, registers(f"model-{name}"))
    assert [plugin.provenance.plugin for plugin in folder.load().plugins] == ["builtin", "a", "b", "c"]


def test_two_distributions_may_use_one_entry_point_name(folder: Folder) -> None:
    folder.install("a", registers("model-a"), point="net")
    folder.install("b", registers("model-b"), point="net")
    found = folder.load()
    assert not [plugin.error for plugin in found.plugins if plugin.error]
    assert str(found.find(ModelSpec, "model-b").provenance) == "glimpsezoo-b 1.0"


def test_what_a_plugin_prints_while_it_is_imported_is_no_answer_of_a_command(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.install("loud", "print('welcome')\n" + registers("m"))
    assert plugin_of(folder.load(), "loud").error is None
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "welcome\n")


def test_a_hook_that_this_version_does_not_have_may_be_marked_optional(folder: Folder) -> None:
    folder.install("new", registers("m") + "@hookimpl(optionalhook=True)\ndef register_dreams():\n    return []\n")
    assert plugin_of(folder.load(), "new").error is None


def test_the_installed_plugins_are_loaded_once() -> None:
    assert registry() is registry()
    assert registry().plugins[0].provenance.plugin == "builtin"


def test_the_version_of_glimpsezoo_itself() -> None:
    from importlib.metadata import version

    assert version_of(None) == version("glimpsezoo")


# What is wrong fails alone, and by name

GOOD = registers("good")
BROKEN = {
    "import": ("raise RuntimeError('no\\nway')", "cannot be imported: no way", []),
    "missing module": ("import nothing_of_this_name", "cannot be imported: No module named 'nothing_of_this_name'", []),
    "syntax": ("def (", "cannot be imported: invalid syntax", []),
    "exit": ("raise SystemExit(3)", "cannot be imported: 3", []),
    "raising hook": (
        GOOD + "@hookimpl\ndef register_importers():\n    raise KeyError('weights')\n",
        "register_importers failed: 'weights'",
        ["good"],
    ),
    "no list": (
        "@hookimpl\ndef register_models():\n    return None\n",
        "register_models failed: expected a list of ModelSpec, got None",
        [],
    ),
    "garbage": (
        GOOD + "@hookimpl\ndef register_datasets():\n    return ['digits']\n",
        "register_datasets failed: expected a list of DatasetSpec, got ['digits']",
        ["good"],
    ),
    "wrong kind": (
        "@hookimpl\ndef register_datasets():\n    return [ExitRuleSpec(name='e', description='', rule='')]\n",
        "register_datasets failed: expected a list of DatasetSpec, got [ExitRuleSpec(",
        [],
    ),
    "arguments": ("@hookimpl\ndef register_models(config):\n    return []\n", "cannot be registered: ", []),
    "misspelt": (
        GOOD + "@hookimpl\ndef register_dataset():\n    return []\n",
        "implements 'register_dataset', which is not a hook: did you mean 'register_datasets'",
        ["good"],
    ),
    "prefix": (f"@hookimpl\ndef register_models():\n    return [{model('timm', prefix=True)}]\n", "got 'timm' with prefix=True", []),
    "colon": (f"@hookimpl\ndef register_models():\n    return [{model('timm:')}]\n", "got 'timm:' with prefix=False", []),
}


@pytest.mark.parametrize(("code", "error", "registered"), BROKEN.values(), ids=BROKEN)
def test_a_plugin_that_is_wrong_is_named_and_the_others_work(folder: Folder, code: str, error: str, registered: list[str]) -> None:
    folder.install("a", registers("before"))
    folder.install("broken", code)
    folder.install("c", registers("after"))
    found = folder.load()
    broken = plugin_of(found, "broken")
    assert broken.error is not None
    assert error in broken.error
    assert "\n" not in broken.error
    assert str(broken.provenance) == "glimpsezoo-broken 1.0"
    assert names(broken) == registered, "what works of a broken plugin is registered"
    assert [plugin.error for plugin in found.plugins if plugin is not broken] == [None, None, None]
    assert [spec.name for spec in found.all(ModelSpec)] == ["before", *registered, "after"]
    with pytest.raises(GlimpseZooError, match=r"got 'befor': did you mean 'before'\? \(broken: broken; see 'glimpsezoo plugins'\)"):
        found.find(ModelSpec, "befor")


def test_a_module_that_answers_to_every_name_is_not_asked_for_any(folder: Folder) -> None:
    """A lazy package imports what is heavy when one of its names is asked for: looking for hooks asks for none."""
    folder.install("lazy", registers("m") + "def __getattr__(name):\n    raise RuntimeError(name)\ndef __dir__():\n    return ['Heavy']\n")
    assert plugin_of(folder.load(), "lazy").error is None
    folder.install("odd", registers("n") + "class Odd:\n    def __getattr__(self, name):\n        return self\nodd = Odd()\n")
    found = folder.load()
    assert plugin_of(found, "odd").error is None
    assert found.find(ModelSpec, "n").name == "n"


# Names


def test_a_name_that_two_plugins_register_is_an_error_once_it_is_asked_for(folder: Folder) -> None:
    folder.install("a", registers("shared", "mine"), version="1.1")
    folder.install("b", registers("shared", "yours"), version="2.2")
    found = folder.load()
    assert not [plugin.error for plugin in found.plugins if plugin.error]
    assert found.find(ModelSpec, "mine").name == "mine"
    assert found.find(ModelSpec, "yours").name == "yours"
    message = "the model 'shared' is registered by glimpsezoo-a 1.1 and by glimpsezoo-b 2.2: uninstall one of them"
    assert found.clashes() == [message]
    with pytest.raises(GlimpseZooError) as caught:
        found.find(ModelSpec, "shared")
    assert str(caught.value) == message


def test_names_of_different_kinds_do_not_clash(folder: Folder) -> None:
    folder.install("a", registers("digits"))
    found = folder.load()
    assert not found.clashes()
    assert isinstance(found.find(DatasetSpec, "digits"), DatasetSpec)


def test_a_prefix_answers_for_all_names_behind_it(folder: Folder) -> None:
    folder.install("t", f"@hookimpl\ndef register_models():\n    return [{model('t:', prefix=True)}, {model('t:x:', prefix=True)}]\n")
    found = folder.load()
    assert found.find(ModelSpec, "t:resnet18").name == "t:"
    assert found.find(ModelSpec, "t:x:resnet18").name == "t:x:", "the longest prefix answers"
    with pytest.raises(GlimpseZooError, match="expected the name of a model, got 't:': known: t:NAME, t:x:NAME"):
        found.find(ModelSpec, "t:")


def test_a_prefix_that_two_plugins_register_clashes(folder: Folder) -> None:
    for name in ("a", "b"):
        folder.install(name, f"@hookimpl\ndef register_models():\n    return [{model('t:', prefix=True)}]\n")
    found = folder.load()
    assert len(found.clashes()) == 1
    with pytest.raises(GlimpseZooError, match=r"'t:' is registered by glimpsezoo-a 1.0 and by glimpsezoo-b 1.0"):
        found.find(ModelSpec, "t:resnet18")


def test_an_unknown_name_gets_the_nearest(folder: Folder) -> None:
    folder.install("a", registers("mgnet", "cnn4"))
    with pytest.raises(GlimpseZooError) as caught:
        folder.load().find(ModelSpec, "MGNT")
    assert str(caught.value) == "expected the name of a model, got 'MGNT': did you mean 'mgnet'?"
    with pytest.raises(GlimpseZooError, match="expected the name of a data set, got 'digitz': did you mean 'digits'"):
        load_plugins([]).find(DatasetSpec, "digitz")


# Import strings and tasks


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("math", "expected an import string 'package.module:attribute', got 'math'"),
        ("math:", "expected an import string"),
        ("nothing_of_this_name:x", "cannot import 'nothing_of_this_name:x', which a plugin names: No module named"),
        ("math:nothing", "cannot import 'math:nothing', which a plugin names: module 'math' has no attribute 'nothing'"),
    ],
)
def test_an_import_string_that_names_nothing_is_one_line(reference: str, error: str) -> None:
    with pytest.raises(GlimpseZooError) as caught:
        load_string(reference)
    assert error in str(caught.value)


def test_a_task_normalises_by_nothing_unless_told() -> None:
    assert (Task((4, 4), 3, ("a",)).mean, Task((4, 4), 3, ("a",)).std) == ((0.0,) * 3, (1.0,) * 3)
    with pytest.raises(GlimpseZooError, match="expected a mean and a std for each of 3 channels"):
        Task((4, 4), 3, ("a",), (0.5,), (0.5,))
    with pytest.raises(GlimpseZooError, match="expected a mean and a std for each of 1 channels"):
        Task((4, 4), 1, ("a",), (0.5,))
