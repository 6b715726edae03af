"""Finds the columns of a table that hold the image and the label: first by name, then by type, among types that can be read."""

from typing import Any

from glimpsezoo.errors import GlimpseZooError

IMAGE_NAMES = (("image", "img"), ("images", "picture", "photo"))
LABEL_NAMES = (("label", "labels"), ("class", "target", "category"))


def find_columns(features: Any, image: str | None, label: str | None) -> tuple[str, str]:
    """The columns of image and label: those that the user named, or else those with a known name, or else the only ones of their type.

    Raises `GlimpseZooError` for a name that is not a column, for no or several candidates, and for a type that cannot be read.
    """
    for key, name in (("image", image), ("label", label)):
        if name is not None and name not in features:
            raise GlimpseZooError(f"--set data.{key}={name} expects a column, and there are {', '.join(features)}")
    types = arrow_types(features)
    images = [name for name in features if _is_image(types[name])]
    labels = [name for name, kind in features.items() if class_names(kind)]
    chosen = (
        image or _called(IMAGE_NAMES, "image", features) or _only(images, "image", features),
        label or _called(LABEL_NAMES, "label", features) or _only(labels, "label", features),
    )
    check_columns(features, chosen)
    return chosen


def check_columns(features: Any, columns: tuple[str, str], where: str = "") -> None:
    """Raise `GlimpseZooError` unless these columns exist and can be read as image and label. where: ' of the split X', for the message."""
    types = arrow_types(features)
    for key, name, readable, wanted in (
        ("image", columns[0], _is_image, "one encoded image per row"),
        ("label", columns[1], is_label, "one class per row (a name, a number or a boolean)"),
    ):
        if name not in types:
            raise GlimpseZooError(f"expected the column {name!r}{where}, got {', '.join(features)}: name columns that all splits have")
        if not readable(types[name]):
            others = [other for other in features if other != name and readable(types[other])]
            there = f" ({' and '.join(others)} can be)" if others else ""
            raise GlimpseZooError(
                f"expected {wanted} in the column {name!r}{where}, got {_worded(types[name])}: "
                f"name another column by --set data.{key}=COLUMN{there}"
            )


def arrow_types(features: Any) -> dict[str, Any]:
    """Column -> the Arrow type in which it is stored."""
    schema = features.arrow_schema
    return {name: schema.field(name).type for name in features}


def class_names(feature: Any) -> tuple[str, ...]:
    """The class names in a label column's feature (or in its list's); none for a column without them."""
    import datasets

    inner = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
    return tuple(inner.names or ()) if isinstance(inner, datasets.ClassLabel) else ()


def item_type(kind: Any) -> Any:
    """The type of a single label: the items' type of a list, the values' type of a dictionary."""
    import pyarrow as pa

    if is_listed(kind):
        return item_type(kind.value_type)
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_listed(kind: Any) -> bool:
    """Whether values are stored in lists."""
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_label(kind: Any) -> bool:
    """Whether a column of this type can hold classes. That each list has one item is checked when it is read."""
    import pyarrow as pa

    item = item_type(kind)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(item) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, *texts))


def _is_image(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return "bytes" in {kind.field(place).name for place in range(kind.num_fields)}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _worded(kind: Any) -> str:
    """A type in words."""
    import pyarrow as pa

    if is_listed(kind):
        return "lists of images" if _is_image(kind.value_type) else f"lists of {_worded(kind.value_type)}"
    if pa.types.is_null(kind):
        return "only missing values"
    return "images" if _is_image(kind) else str(kind)


def _called(tiers: tuple[tuple[str, ...], ...], key: str, features: Any) -> str | None:
    """The column with a known name, from the first tier of names that occurs."""
    for names in tiers:
        found = [name for name in features if name.casefold() in names]
        if found:
            return _only(found, key, features)
    return None


def _only(names: list[str], key: str, features: Any) -> str:
    if len(names) == 1:
        return names[0]
    got = ", ".join(names) if names else f"none of {', '.join(features)}"
    raise GlimpseZooError(f"expected one column of {key}s, got {got}: name it by --set data.{key}=COLUMN")
