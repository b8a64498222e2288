"""How a script of this folder ends on a user's mistake, and on Ctrl-C."""

import contextlib
import sys
from collections.abc import Iterator

from kdas_edge.console import info
from kdas_edge.errors import UserError


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End a script with one line: on a user's mistake with exit code 2, on Ctrl-C with 130."""
    try:
        yield
    except UserError as error:
        info(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        info("interrupted")
        sys.exit(130)
