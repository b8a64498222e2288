"""Where the time of an inference goes: layer by layer, summed by layer type.

A runtime is imported when its profile is asked for: a device may have only one.
"""

from typing import TYPE_CHECKING, Any

from kdas_edge.inspect.layers import Group, Layer, Profile

if TYPE_CHECKING:
    from kdas_edge.inspect.onnxruntime import profile_onnx
    from kdas_edge.inspect.openvino import profile_model

__all__ = ["Group", "Layer", "Profile", "profile_model", "profile_onnx"]


def __getattr__(name: str) -> Any:
    if name == "profile_model":
        from kdas_edge.inspect.openvino import profile_model

        return profile_model
    if name == "profile_onnx":
        from kdas_edge.inspect.onnxruntime import profile_onnx

        return profile_onnx
    raise AttributeError(f"module {__name__} has no attribute {name}")
