"""Errors of a model on a target: a message of one line, and a kind of two words for tables."""

from typing import Literal

from kdas_edge.errors import UserError, last_line

Kind = Literal[
    "runtime absent",
    "device absent",
    "no such model",
    "wrong option",
    "dynamic shape",
    "cannot load",
    "inference failed",
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


def inference_failed(target: object, runtime: str, error: Exception) -> TargetError:
    """An error for a runtime that failed while it ran: a lost device, or no memory left."""
    return TargetError(
        "inference failed",
        f"target {target}: {runtime} could not run the model ({last_line(error)}); check "
        "the device and its driver, or choose another target",
    )


def model_closed() -> TargetError:
    """The model was freed, perhaps by another thread."""
    return TargetError("closed", "the model is closed; load it again")
