"""Settings: text from the command line becomes values, and errors are one line that names the key."""

from typing import Literal

import pytest
from pydantic import Field, model_validator

from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.settings import NoSettings, Setting, Settings, settings_of


class Example(Settings):
    glimpses: int = Field(4, ge=1)
    alpha: float = 0.5
    biases: bool = True
    policy: Literal["learned", "random"] = "learned"
    scale: tuple[float, float] = (0.2, 0.5)
    names: tuple[str, ...] = ()
    crop: tuple[int, int] | None = None
    size: tuple[int, int] | int = 8
    depth: int | None = 3
    none: str = "x"
    restarts: Literal[1] = 1
    samples: Literal[1, 20] | None = 20

    @model_validator(mode="after")
    def _ordered(self) -> "Example":
        if self.scale[0] > self.scale[1]:
            raise ValueError("expected the smaller scale first")
        return self


class Needy(Settings):
    backbone: str


def parse(**values: object) -> Example:
    return Example.parse(values, owner="mgnet")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("glimpses", "2", 2),
        ("alpha", "1e-3", 0.001),
        ("biases", "false", False),
        ("biases", "1", True),
        ("policy", "random", "random"),
        ("scale", "0.1, 0.4", (0.1, 0.4)),
        ("scale", [0.1, 0.4], (0.1, 0.4)),
        ("names", "a", ("a",)),
        ("names", "a,b", ("a", "b")),
        ("crop", "none", None),
        ("crop", "3,4", (3, 4)),
        ("size", "16", 16),
        ("size", "16,24", (16, 24)),
        ("depth", "None", None),
        ("depth", "7", 7),
        ("none", "none", "none"),
        ("depth", None, None),
        ("restarts", "1", 1),
        ("samples", "1", 1),
        ("samples", "none", None),
    ],
)
def test_text_becomes_the_value_that_the_key_takes(key: str, text: object, value: object) -> None:
    got = getattr(parse(**{key: text}), key)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"glimpse": "2"}, "mgnet has no setting 'glimpse': did you mean 'glimpses'?"),
        ({"glimpses": "two"}, "--set glimpses=two for mgnet: Input should be a valid integer, unable to parse string as an integer"),
        ({"glimpses": "0"}, "--set glimpses=0 for mgnet: Input should be greater than or equal to 1"),
        ({"glimpses": "2.5"}, "--set glimpses=2.5 for mgnet: Input should be a valid integer, unable to parse string as an integer"),
        ({"restarts": "2"}, "--set restarts=2 for mgnet: Input should be 1"),
        ({"policy": "rnd"}, "--set policy=rnd for mgnet: Input should be 'learned' or 'random'"),
        ({"scale": "0.1,x"}, "--set scale=0.1,x for mgnet: Input should be a valid number, unable to parse string as a number"),
        ({"scale": "0.1"}, "--set scale=0.1 for mgnet: Field required"),
        ({"scale": "0.5,0.1"}, "settings of mgnet: expected the smaller scale first"),
        ({"biases": "maybe"}, "--set biases=maybe for mgnet: Input should be a valid boolean, unable to interpret input"),
    ],
)
def test_what_is_wrong_is_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(GlimpseZooError) as caught:
        parse(**values)
    assert str(caught.value) == message


def test_a_value_from_a_file_is_shown_as_it_stands_there() -> None:
    with pytest.raises(GlimpseZooError) as caught:
        parse(scale=[0.1, "x"])
    assert str(caught.value) == "scale.1 of mgnet: Input should be a valid number, unable to parse string as a number, got 'x'"


def test_a_setting_without_default_must_be_given() -> None:
    assert Needy.parse({"backbone": "cnn4"}, owner="x").backbone == "cnn4"
    with pytest.raises(GlimpseZooError, match="backbone of x: Field required"):
        Needy.parse({}, owner="x")


def test_settings_are_frozen_and_defaults_are_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse().glimpses = 3  # type: ignore[misc]

    class Wrong(Settings):
        glimpses: int = Field(0, ge=1)

    with pytest.raises(GlimpseZooError, match="glimpses of x: Input should be greater than or equal to 1, got 0"):
        Wrong.parse({}, owner="x")


def test_what_has_no_settings_says_so() -> None:
    with pytest.raises(GlimpseZooError, match="data has no setting 'size': none is known"):
        NoSettings.parse({"size": 3}, owner="data")


# Suggestions of known names, and messages on one line


@pytest.mark.parametrize(
    ("name", "known", "clause"),
    [
        ("mgnt", ["mgnet", "cnn4"], "did you mean 'mgnet'?"),
        ("MGNET", ["mgnet", "cnn4"], "did you mean 'mgnet'?"),
        ("mgnet", ["MGNet"], "did you mean 'MGNet'?"),
        ("scan", ["scans", "scant", "x"], "did you mean 'scant' or 'scans'?"),
        ("zzz", ["b", "a", "a"], "known: a, b"),
        ("zzz", [], "none is known"),
        ("zzz", [f"name{i:02}" for i in range(20)], "known: " + ", ".join(f"name{i:02}" for i in range(12)) + ", ..."),
    ],
)
def test_the_nearest_names_are_named(name: str, known: list[str], clause: str) -> None:
    assert did_you_mean(name, known) == clause


def test_any_error_fits_on_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(KeyError()) == "KeyError"


class Described(Settings):
    """A view.

    It is in px.
    """

    side: int = 8
    """The side
    of the view."""
    depth: int | None = None
    weight: tuple[float, ...] = Field((0.5,), description="Said in the field.")
    untold: bool = False


class Further(Described):
    side: int = 4
    """The side of the thumbnail."""
    depth: int | None = 3
    mode: Literal["slow"] = "slow"
    """Fixed."""


def test_the_docstrings_of_a_config_and_its_fields_tell_what_they_mean():
    assert settings_of(Described) == (
        "A view. It is in px.",
        [
            Setting("side", "integer", 8, False, "The side of the view."),
            Setting("depth", "integer or none", None, False, ""),
            Setting("weight", "number,...", [0.5], False, "Said in the field."),
            Setting("untold", "boolean", False, False, ""),
        ],
    )


def test_a_derived_config_tells_only_what_it_adds():
    about, settings = settings_of(Further)
    assert about == ""
    assert [(each.key, each.default, each.meaning) for each in settings] == [
        ("side", 4, "The side of the thumbnail."),
        ("depth", 3, ""),
        ("weight", [0.5], "Said in the field."),
        ("untold", False, ""),
        ("mode", "slow", "Fixed."),
    ]


def test_a_field_that_is_overridden_keeps_its_parent_s_description():
    class Shallow(Described):
        side: int = 2

    assert settings_of(Shallow)[1][0] == Setting("side", "integer", 2, False, "The side of the view.")


def test_numbers_are_finite_in_every_config() -> None:
    class Anything(Settings):
        number: float = 1.0
        numbers: tuple[float, ...] = (1.0,)
        maybe: float | None = None

    for key, value in (("number", "inf"), ("number", float("nan")), ("numbers", "1,-inf"), ("maybe", "nan")):
        with pytest.raises(GlimpseZooError, match="finite number"):
            Anything.parse({key: value}, owner="anything")
