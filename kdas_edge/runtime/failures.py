"""Why a model does not run on a target: a clear line, and a word or two for a table's cell."""

from typing import Literal

from kdas_edge.errors import UserError

Kind = Literal[
    "runtime absent",
    "device absent",
    "no such model",
    "wrong option",
    "dynamic shape",
    "cannot load",
    "closed",
]


class TargetError(UserError):
    """A model and a target that do not go together.

    Attributes:
        kind: the reason in two words, e.g. `device absent`.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind
