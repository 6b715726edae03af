"""Numbers as text, with their units."""

from glimpsezoo.measures.statistics import Estimate


def macs_text(macs: float, *, at_least: bool = False) -> str:
    """A number of MACs with a unit. at_least: whether it is a lower bound.

    >>> macs_text(10_619_085), macs_text(1.3432e9), macs_text(900, at_least=True)
    ('10.619 M', '1.343 G', '>= 900')
    """
    if at_least:
        return f">= {macs_text(macs)}"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if macs >= size:
            return f"{macs / size:.3f} {unit}"
    return f"{macs:.0f}"


def percent(estimate: Estimate, digits: int = 1) -> str:
    return f"{100 * estimate.value:.{digits}f}"


def interval(estimate: Estimate, digits: int = 1) -> str:
    return f"{100 * estimate.low:.{digits}f} to {100 * estimate.high:.{digits}f}"


def with_interval(estimate: Estimate, digits: int = 1) -> str:
    """Per cent followed by the 95 % interval, whose ends have `digits` decimals."""
    return f"{percent(estimate)} ({100 * estimate.low:.{digits}f}-{100 * estimate.high:.{digits}f})"


def eps_text(eps: float) -> str:
    """As it is usually written: in 255ths if it is a whole number of them.

    >>> eps_text(8 / 255), eps_text(0.5), eps_text(3)
    ('8/255', '0.5', '3')
    """
    levels = eps * 255
    return f"{round(levels)}/255" if eps < 1 and levels >= 0.5 and abs(levels - round(levels)) < 1e-6 else f"{eps:g}"


def budget_text(norm: str, eps: float) -> str:
    """The budget of an attack.

    >>> budget_text("Linf", 8 / 255), budget_text("L0", 24), budget_text("patch", 0.05)
    ('Linf 8/255', 'L0 24 pixels', '5 % of the area')
    """
    if norm == "patch":
        return f"{100 * eps:g} % of the area"
    return f"{norm} {eps:g} pixels" if norm == "L0" else f"{norm} {eps_text(eps)}"


def short(value: object) -> str:
    """A number to three digits, or several of them."""
    if isinstance(value, list | tuple):
        return " ".join(map(short, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
