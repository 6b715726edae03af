"""Text that anybody may have written (names, settings, class names, errors of a server), made harmless: one function for each medium.

Writers call these on everything that they did not write themselves. Characters that nobody sees (control characters, escape sequences,
marks that turn the direction of text, zero-width characters) are shown as the escapes that JSON has for them.
"""

import os
import re
from html import escape

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_BREAKS = re.compile("[\t\n\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029]+")
_ONLY_LINES = "\t\n"

_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "TRACKIO_WRITE_TOKEN")  # variables of the environment
_SECRET = re.compile(
    r"hf_[A-Za-z0-9]{16,}"
    r"|(?<=://)[^/?#\s]+(?=@)"  # user and password of an address; as in libraries, up to the last @
    r"|(?i:(?<=bearer )|(?<=basic ))[\w.~+/=-]{8,}"
    r"|(?i:(?<=signature=)|(?<=token=)|(?<=credential=))[^&\s'\"]{8,}"
)

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # at the beginning of a row, it would be an argument of the row before
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # also in full width
_MARKDOWN = re.compile(r"([\\|`*\[\]#])")


class Markdown(str):
    """Text that is Markdown already and needs no escaping."""


class Html(str):
    """Text that is HTML already and needs no escaping."""


def terminal(text: str) -> str:
    r"""Text for a terminal, of one line or several. Tokens are left out. JSON stays the same JSON.

    >>> terminal("\x1b[31mred\u202e")
    '\\u001b[31mred\\u202e'
    """
    return _visible(redacted(text), kept=_ONLY_LINES)


def line(text: str) -> str:
    r"""Text for one line of a terminal.

    >>> line("a\nb")
    'a b'
    """
    return _on_one_line(redacted(text))


def html(text: str) -> str:
    """Text for an element or an attribute of HTML or SVG; `Html` as it is."""
    return text if isinstance(text, Html) else escape(_on_one_line(text))


def markdown(text: object) -> Markdown:
    r"""Text that Markdown shows literally, also in a table, and that makes no link; `Markdown` as it is.

    >>> markdown("[x](y) | <b>_c_ d_e")
    '\\[x\\](y) \\| &lt;b>\\_c\\_ d_e'
    """
    if isinstance(text, Markdown):
        return text
    found = " ".join(_on_one_line(str(text)).split()).replace("&", "&amp;").replace("<", "&lt;")
    found = _MARKDOWN.sub(r"\\\1", found)
    found = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", found)  # inside a word, an underscore is literal
    found = found.replace("~~", "&#126;&#126;").replace("$", "&#36;")
    found = re.sub(r"(?i)(https?|ftp):", r"\1&#58;", found)  # or an address would become a link, as would the next two
    found = re.sub(r"(?i)(www)\.", r"\1&#46;", found)
    return Markdown(re.sub(r"(?<=[\w.+-])@(?=[\w-]+\.)", "<!-- -->@", found))  # a reference is read before e-mail links are looked for


def code(text: object) -> Markdown:
    """Text as a code span of Markdown.

    >>> code("a`b")
    '``a`b``'
    """
    found = _on_one_line(str(text))
    ticks = "`" * (_longest_run(found) + 1)
    space = " " if found.startswith("`") or found.endswith("`") or not found.strip() else ""
    return Markdown(f"{ticks}{space}{found}{space}{ticks}")


def fenced(text: object) -> Markdown:
    """Text as a block of code of Markdown, in one line."""
    found = _on_one_line(str(text))
    ticks = "`" * max(3, _longest_run(found) + 1)
    return Markdown(f"{ticks}\n{found}\n{ticks}")


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def yaml(value: object) -> object:
    """Text for a value of YAML, in one line; dictionaries and lists with all their texts, anything else as it is."""
    if isinstance(value, dict):
        return {_on_one_line(str(key)): yaml(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [yaml(inner) for inner in value]
    return _on_one_line(value) if isinstance(value, str) else value


def latex(text: str) -> str:
    r"""Text for a cell of a LaTeX table.

    >>> latex("a_b & \\c")
    'a\\_b \\& \\textbackslash{}c'
    """
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(_on_one_line(text).split()))


def latex_comment(text: str) -> str:
    """Text for one line of a LaTeX comment."""
    return " ".join(_on_one_line(text).split())


def cell(text: str) -> str:
    """Text for a cell of CSV, which no spreadsheet runs as a formula, also behind blanks."""
    found = _on_one_line(text)
    return f"'{found}" if _FORMULA.match(found) else found


def redacted(text: str) -> str:
    """Text without the tokens of this user: those of the environment, of the Hub, and in addresses.

    >>> redacted("GET https://me:secret@host/x")
    'GET https://***@host/x'
    """
    for name in _TOKENS:
        token = os.environ.get(name, "").strip()
        if len(token) > 7:  # a shorter one is none, and might be part of a word
            text = text.replace(token, "***")
    return _SECRET.sub("***", text)


def _on_one_line(text: str) -> str:
    return _visible(_BREAKS.sub(" ", text))


def _visible(text: str, kept: str = "") -> str:
    return _HIDDEN.sub(lambda found: found[0] if found[0] in kept else _escaped(found[0]), text)


def _escaped(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[k : k + 4]}" for k in range(0, len(units), 4))
