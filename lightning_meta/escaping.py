"""Text from files of others (names of experiments, classes and files, settings), as each kind of output can show it.

Every function gives one line without control characters, so that no name moves a terminal's cursor or changes its
colours, in a file that is printed no less than on the screen.
"""

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # and their full-width forms: what spreadsheets compute

# Python-Markdown, which builds the site, takes a backslash before fewer letters than CommonMark: entities for the rest.
_MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*[|"} | {
    "<": "&lt;", ">": "&gt;", "&": "&amp;", "~": "&#126;", "$": "&#36;",
}  # fmt: skip
_LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", "±": r"$\pm$",
    "[": "{[}", "]": "{]}", "*": "{*}",  # behind the end of a row they would be its arguments
    REPLACEMENT: "?",
}  # fmt: skip


def printable(text: str) -> str:
    r"""The text without what would move a terminal's cursor, hide or reverse letters, or could not be encoded.

    >>> printable("red\x1b[31m")
    'red�[31m'
    """
    return "".join(letter if letter.isprintable() else REPLACEMENT for letter in text)


def markdown(text: str) -> str:
    r"""The text in a cell or a paragraph of Markdown; an underscore within a word marks nothing and stays.

    >>> print(markdown("finn_5w1s|*a*"), markdown("_x_ <b>"))
    finn_5w1s\|\*a\* \_x\_ &lt;b&gt;
    """
    escaped = "".join(_MARKDOWN.get(letter, letter) for letter in printable(text))
    escaped = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)
    # What begins a heading, a list or a line at the beginning of a block.
    return re.sub(r"^(#|[+-](?=[\s-])|\d+(?=[.)]\s))", lambda start: f"{start[0][:-1]}&#{ord(start[0][-1])};", escaped)


def code(text: str) -> str:
    """The text as a code span of Markdown.

    >>> code("a `b`")
    '`` a `b` ``'
    """
    text = printable(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def cell(value: object) -> object:
    """A cell of a CSV file: text that a spreadsheet would take for a formula begins with an apostrophe.

    >>> cell("=1+1"), cell("-1"), cell(-1.5), cell(" @SUM(A1)")
    ("'=1+1", '-1', -1.5, "' @SUM(A1)")
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    begins = value.lstrip().startswith(FORMULA) or value[:1] in ("\t", "\r", "\n")
    return f"'{text}" if begins and not _is_number(text) else text


def latex(text: str) -> str:
    r"""The text in a paragraph or a cell of LaTeX.

    >>> latex("a_b & 50 % ± 2")
    'a\\_b \\& 50 \\% $\\pm$ 2'
    """
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
