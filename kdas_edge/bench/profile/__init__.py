"""Where the time of an inference goes: layer by layer, summed by layer type."""

from kdas_edge.bench.profile.layers import Group, Layer, Profile
from kdas_edge.bench.profile.onnxruntime import profile_onnx
from kdas_edge.bench.profile.openvino import profile_model

__all__ = ["Group", "Layer", "Profile", "profile_model", "profile_onnx"]
