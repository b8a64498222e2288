"""Errors that a person can act on, each with the exit code that the command line returns."""


class KdasEdgeError(Exception):
    """Base of all errors that end a command with one clear line instead of a traceback."""

    exit_code = 1


class UserError(KdasEdgeError):
    """The input is wrong. The message names the offending value and the remedy, in one line."""

    exit_code = 2


class GateError(KdasEdgeError):
    """An accuracy or agreement gate failed; the best attempt and its numbers are on disk."""

    exit_code = 3
