"""What a person sees: tables and progress bars on a terminal, plain lines elsewhere."""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from kdas_edge.table import NONE, Cell, Column, Fit, Table, fit, transposed, wrap

if TYPE_CHECKING:
    from rich.table import Table as RichTable

# A log file gets a line at most this often, in seconds: enough to see life, too few to flood.
_PLAIN_INTERVAL = 15.0
# characters of a line in a log file, where no terminal and no COLUMNS says otherwise
_WIDE = 160


def info(message: str) -> None:
    """Print one line of information on the standard error, so that stdout stays for results."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(total: int | None, description: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show the progress of `total` steps with the time left; None where no end is known.

    On a terminal a Rich progress bar; elsewhere a plain line every 15 seconds.

    Args:
        total: steps in all.
        description: what is going on.
        done: steps of an earlier, stopped run; they say nothing about the time left.

    Yields:
        `advance(steps=1, note="")`; the note (for example a loss) is shown beside the bar.

    Example:
        with progress(len(pairs), "reading images") as advance:
            for pair in pairs:
                advance(note=pair.name)
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        with Progress(
            TextColumn("{task.description}", markup=False),  # it may name a folder: [old] is none
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
        ) as bar:
            task = bar.add_task(description, total=total, completed=done, note="")

            def advance(steps: int = 1, note: str = "") -> None:
                bar.update(task, advance=steps, note=note)

            yield advance
        return

    start = last = time.monotonic()
    first = done

    def advance_plain(steps: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        ended = total is not None and done >= total
        if now - last >= _PLAIN_INTERVAL or (ended and now - start >= _PLAIN_INTERVAL):
            last = now
            if total is None:
                info(f"{description}: {done} {note}".rstrip())
                return
            left = (now - start) / max(1, done - first) * max(0, total - done)
            info(f"{description}: {done}/{total}, {left:.0f} s left {note}".rstrip())

    yield advance_plain


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell | object]]) -> None:
    """Print a table of cells that have no column definitions; see `print_table`.

    Args:
        title: heading of the table; it names the protocol where the table shows accuracies.
        columns: column headings.
        rows: cells (`kdas_edge.table.Cell`), numbers, or what is shown with `str`. A column is
            aligned right if every cell that is not empty has a value.
    """
    cells = tuple(tuple(_cell(value) for value in row) for row in rows)
    made = []
    for index, heading in enumerate(columns):
        filled = [row[index] for row in cells if row[index].text not in ("", NONE.text)]
        numeric = bool(filled) and all(cell.value is not None for cell in filled)
        made.append(Column(heading, numeric))
    print_table(Table(title, tuple(made), cells))


def print_table(table: Table) -> None:
    """Print a table on stdout so that it fits the terminal, or the variable `COLUMNS`.

    Without both it may take 160 characters. Where that does not suffice the columns of the highest
    rank are left out and named in a line below; where those of rank 0 are too wide the rows are
    transposed, one block each.
    """
    from rich.console import Console
    from rich.text import Text

    width = shutil.get_terminal_size((_WIDE, 24)).columns
    # Rich knows a terminal's colours; the width is ours
    console = Console(width=max(width, 1))
    layout = fit(table, width, cell_width)
    # Text, not str: Rich would take `[train]` in a remedy, or in the name of a file, for markup
    if layout is not None:
        console.print(_grid(table, layout))
        if layout.left_out:
            left = f"no room for: {', '.join(layout.left_out)} (a wider terminal, or COLUMNS=200)"
            console.print(Text(left))
    else:
        console.print(Text(table.title, "table.title"))
        for part in transposed(table):
            layout = fit(part, width, cell_width)
            if layout is not None:
                console.print(_grid(part, layout))
            else:
                for heading, cell in part.rows:
                    console.print(Text(f"{heading.text}: {cell.text}"))
    if table.below:
        console.print(Text(table.below))


def _grid(table: Table, layout: Fit) -> "RichTable":
    from rich.table import Table as RichTable
    from rich.text import Text

    title = Text(table.title, "table.title") if table.title else None
    grid = RichTable(title=title, title_justify="left")
    chosen = list(zip(layout.columns, layout.widths, strict=True))
    for i, width in chosen:
        column = table.columns[i]
        grid.add_column(
            Text("\n".join(wrap(column.heading, width, cell_width))),
            justify="right" if column.numeric else "left",
            width=width,
            overflow="fold",
        )
    for row in table.rows:
        grid.add_row(*(Text("\n".join(wrap(row[i].text, w, cell_width))) for i, w in chosen))
    return grid


def cell_width(text: str) -> int:
    """Characters of a terminal that a text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def _cell(value: object) -> Cell:
    if isinstance(value, Cell):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(str(value), float(value) if is_number else None)  # type: ignore[arg-type]
