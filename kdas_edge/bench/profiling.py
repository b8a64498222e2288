"""The profile of one row of a benchmark: a bundle's model with the settings of its target."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.reader import Bundle
from kdas_edge.errors import UserError
from kdas_edge.inspect import Profile, profile
from kdas_edge.runtime.backends import FORMATS
from kdas_edge.runtime.targets import Target


def profile_row(
    bundle: Bundle,
    precision: str,
    target: Target,
    inputs: Sequence[NDArray[np.generic]],
    rounds: int,
) -> Profile:
    """Load a `core` model once more with the runtime's counters on, and run it.

    The timed model of the benchmark is another one: counters cost time.

    Args:
        bundle: an opened bundle.
        precision: the model file.
        target: where to run.
        inputs: (1, 3, S, S) float32 each, fed in turn.
        rounds: profiled inferences.

    Raises:
        UserError: the runtime has no profiler here, or cannot load the model.
    """
    if target.runtime == "torch":
        raise UserError("a torch target has no profile; choose openvino or onnxruntime")
    model = bundle.model(precision, FORMATS[target.runtime])
    if model is None:
        raise UserError(f"{bundle.name} has no {precision} model for {target.runtime}")
    return profile(bundle.file(model.path), inputs, target, rounds)
