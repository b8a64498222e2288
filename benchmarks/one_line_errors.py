"""How a script of this folder ends on a user's mistake."""

import contextlib
import sys
from collections.abc import Iterator

from kdas_edge.console import info
from kdas_edge.errors import UserError


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End a script on a user's mistake with one line and exit code 2."""
    try:
        yield
    except UserError as error:
        info(f"error: {error}")
        sys.exit(error.exit_code)
