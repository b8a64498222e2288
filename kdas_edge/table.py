"""One model of a table: columns, and cells that hold a value beside its text.

The modules of `report/` and `quantize/` say what a table shows. Here and in `console` stands how:
`console.print_table` for a terminal, `markdown` for the README and the model card, the macro of
`report/page.html.j2` for HTML. Values stay beside their text, so that nothing reads text back.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Row = TypeVar("Row")

# where a line may be broken: paths, targets and names are long and have no spaces
_BREAK = re.compile(r"(?<=[\s:/,=])(?=[^\s:/,=])|(?<=\w-)(?=\w)")
# a longer piece of a word may be cut anywhere
_LONGEST_PIECE = 16
# a terminal draws a space on both sides of a cell and a line after it
_FRAME = 3


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: as it is shown.
        value: the number behind the text; what a column is sorted by, None sorts to the end.
        note: more about the number, for example its interval; shown by HTML on hovering.
    """

    text: str
    value: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        heading: its name.
        numeric: holds numbers: aligned right, never broken, sorted by value.
        rank: 0 is always shown; where the width does not suffice, columns of the highest rank are
            left out first.
    """

    heading: str
    numeric: bool = False
    rank: int = 0


@dataclass(frozen=True)
class Table:
    """What is shown; every row has as many cells as there are columns.

    Attributes:
        title: heading of the table.
        columns: from left to right.
        rows: from top to bottom.
        failed: numbers of the rows that failed; HTML marks them.
        below: a line under the table.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    failed: frozenset[int] = frozenset()
    below: str = ""


NONE = Cell("–")


def number(value: float | None, digits: int = 2, unit: str = "", scale: float = 1.0) -> Cell:
    """A number as a cell; `NONE` without one.

    Args:
        value: what the column is sorted by.
        digits: decimals that are shown.
        unit: written after the number.
        scale: factor between value and text, e.g. 100 for per cent.
    """
    return NONE if value is None else Cell(f"{scale * value:.{digits}f}{unit}", value)


def count(value: int | None) -> Cell:
    """A whole number as a cell; `NONE` without one."""
    return NONE if value is None else Cell(str(value), value)


def build(
    title: str,
    columns: Iterable[tuple[Column, Callable[[Row], Cell]]],
    rows: Sequence[Row],
    below: str = "",
) -> Table:
    """A table of one row per item; an optional column (rank above 0) that is empty is left out.

    Args:
        title: of the table.
        columns: each with the function that makes its cell of an item.
        rows: the items.
        below: a line under the table.
    """
    made = [(column, [cell(row) for row in rows]) for column, cell in columns]
    kept = [
        (column, cells)
        for column, cells in made
        if column.rank == 0 or any(cell is not NONE for cell in cells)
    ]
    return Table(
        title,
        tuple(column for column, _ in kept),
        tuple(zip(*(cells for _, cells in kept), strict=True)),
        below=below,
    )


def markdown(table: Table) -> str:
    """A table as GitHub's Markdown, without its title; what a name holds cannot become markup."""
    cells = [[column.heading for column in table.columns]]
    cells += [[cell.text for cell in row] for row in table.rows]
    first, *others = ["| " + " | ".join(map(escaped, row)) + " |" for row in cells]
    rule = "|" + "".join("---:|" if column.numeric else "---|" for column in table.columns)
    return "\n".join([first, rule, *others, *(["", table.below] if table.below else [])])


def escaped(text: str) -> str:
    """Text inside Markdown: no HTML, no link, no new cell and no new line."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Text as a code span of Markdown, which nothing in it can end."""
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"


@dataclass(frozen=True)
class Fit:
    """How a table fits a width.

    Attributes:
        columns: numbers of the columns that are shown.
        widths: characters of each.
        left_out: headings of the others.
    """

    columns: tuple[int, ...]
    widths: tuple[int, ...]
    left_out: tuple[str, ...] = ()


def fit(table: Table, width: int, measure: Callable[[str], int] = len) -> Fit | None:
    """Choose columns and their widths.

    Columns of text are wrapped between words, numbers never. If that does not suffice the columns
    of the highest rank are left out, the rightmost of them first.

    Args:
        table: what is shown.
        width: characters of a line.
        measure: characters that a text takes; East Asian ones take two.

    Returns:
        None if not even the columns of rank 0 fit: the rows have to be transposed.
    """
    least, most = _widths(table, measure)
    shown = list(range(len(table.columns)))

    def room() -> int:
        return width - 1 - sum(_FRAME + least[i] for i in shown)

    while room() < 0:
        rank = max((table.columns[i].rank for i in shown), default=0)
        if rank == 0:
            return None
        shown.remove(max(i for i in shown if table.columns[i].rank == rank))
    spare, widths = room(), {i: least[i] for i in shown}
    # the narrowest wish first, so that one long column does not take what five short ones need
    for place, i in enumerate(sorted(shown, key=lambda i: most[i] - least[i])):
        given = min(most[i] - least[i], spare // (len(shown) - place))
        widths[i] += given
        spare -= given
    left_out = tuple(c.heading for i, c in enumerate(table.columns) if i not in shown)
    return Fit(tuple(shown), tuple(widths[i] for i in shown), left_out)


def transposed(table: Table) -> list[Table]:
    """One table of two columns for every row, for a line that is too narrow for the columns."""
    return [
        Table(
            "",
            (Column(table.columns[0].heading), Column(row[0].text)),
            tuple(
                (Cell(column.heading), cell)
                for column, cell in zip(table.columns[1:], row[1:], strict=True)
            ),
        )
        for row in table.rows
    ]


def wrap(text: str, width: int, measure: Callable[[str], int] = len) -> list[str]:
    """Lines of at most `width` characters, broken after a space, `:`, `/`, `,`, `=` or `-`."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for piece in _BREAK.split(paragraph):
            if line and measure((line + piece).rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
            line += piece
            while measure(line.rstrip()) > width:
                cut = next(
                    i for i in range(len(line), 0, -1) if measure(line[:i]) <= width or i == 1
                )
                lines.append(line[:cut])
                line = line[cut:]
        lines.append(line.rstrip())
    return lines


def _widths(table: Table, measure: Callable[[str], int]) -> tuple[list[int], list[int]]:
    """The least width of every column and that at which nothing is wrapped."""
    least, most = [], []
    for i, column in enumerate(table.columns):
        texts = [line for row in table.rows for line in row[i].text.split("\n")]
        whole = max((measure(text) for text in texts), default=0)
        words = max((_longest_piece(text, measure) for text in texts), default=0)
        heading = max((measure(word) for word in column.heading.split()), default=0)
        least.append(max(whole if column.numeric else words, min(heading, _LONGEST_PIECE), 1))
        most.append(max(whole, measure(column.heading), 1))
    return least, most


def _longest_piece(text: str, measure: Callable[[str], int]) -> int:
    pieces = (measure(piece.rstrip()) for piece in _BREAK.split(text))
    return min(max(pieces, default=0), _LONGEST_PIECE)
