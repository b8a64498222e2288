"""Errors that a person can act on, each with the exit code that the command line returns."""

_LONGEST = 300


class KdasEdgeError(Exception):
    """Base of all errors that end a command with one clear line instead of a traceback."""

    exit_code = 1


class UserError(KdasEdgeError):
    """The input is wrong. The message names the offending value and the remedy, in one line."""

    exit_code = 2


class GateError(KdasEdgeError):
    """An accuracy or agreement gate failed; the best attempt and its numbers are on disk."""

    exit_code = 3


def first_line(source: BaseException | str) -> str:
    """Return the first line of an exception's message, or of a text, that is not blank.

    Returns:
        At most 300 characters; the name of the exception's type where its message is empty.
    """
    return _line(source, 0)


def last_line(source: BaseException | str) -> str:
    """Return the last line that is not blank, as `first_line` does.

    OpenVINO, the exporters and Python's tracebacks write the reason there.
    """
    return _line(source, -1)


def _line(source: BaseException | str, index: int) -> str:
    lines = [line.strip() for line in str(source).splitlines() if line.strip()]
    if lines:
        return lines[index][:_LONGEST]
    return "" if isinstance(source, str) else type(source).__name__
