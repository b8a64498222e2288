"""What a person sees: tables and progress bars on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

# A log file gets a line at most this often, in seconds: enough to see life, too few to flood.
_PLAIN_INTERVAL = 15.0


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


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a results table on stdout; numbers are aligned right.

    Args:
        title: heading of the table; it names the protocol where the table shows accuracies.
        columns: column headings.
        rows: cells, shown with `str`; floats are expected to be formatted by the caller.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Text, not str: Rich would take `[train]` in a remedy, or in the name of a file, for markup
    grid = Table(title=Text(title, "table.title"), title_justify="left")
    for index, column in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in rows) if rows else False
        grid.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    # a table in a log file must not be cut to 80 columns
    Console(width=None if sys.stdout.isatty() else 160).print(grid)


def _is_number(cell: object) -> bool:
    text = str(cell).strip().rstrip("x%×").replace("±", "").replace("–", "")
    if not text:
        return True
    try:
        float(text.split()[0])
    except (ValueError, IndexError):
        return False
    return True
