"""Reading executed graphs: layer times (`profile`), and what runs in int8 (`kernels`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.inspect.layers import Layer, LayerGroup, Profile
from kdas_edge.runtime.targets import Target

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["Layer", "LayerGroup", "Profile", "profile"]


def profile(
    model: "Path | ov.Model",
    x: NDArray[np.generic] | Sequence[NDArray[np.generic]],
    target: Target,
    rounds: int = 20,
    warmup: int = 5,
) -> Profile:
    """Run a model synchronously, one request, and time each executed layer.

    Args:
        model: path of an IR or ONNX file that the target's runtime loads; for OpenVINO also a
            graph, which is not changed.
        x: the input, or several that are fed in turn.
        target: where to run, with the settings of every other use of this target.
        rounds: profiled inferences, at least 5 for OpenVINO.
        warmup: inferences before the profiled ones; the first allocates memory and packs weights.

    Returns:
        Every layer that ran. A layer that was fused into another or runs in place is not listed.

    Raises:
        UserError: too few rounds, or the runtime cannot load the model or has no profiler.
    """
    # a runtime is imported when it is asked for: a device may have only one
    if target.runtime == "openvino":
        from kdas_edge.inspect.openvino import profile_model

        return profile_model(model, x, target, rounds, warmup)
    if target.runtime == "onnxruntime" and isinstance(model, Path):
        from kdas_edge.inspect.onnxruntime import profile_onnx

        return profile_onnx(model, x, target, rounds, warmup)
    raise UserError(f"a {target.runtime} target has no profile; choose openvino or onnxruntime")
