"""Run a bundle on a device, without PyTorch.

from kdas_edge.runtime import Segmenter

with Segmenter.load("mybundle", target="openvino:CPU") as segmenter:
    result = segmenter.segment(frame_bgr)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdas_edge.runtime.segmenter import Result, Segmenter

__all__ = ["Result", "Segmenter"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: the command line imports `runtime.targets` and must start at once.
    if name in __all__:
        from kdas_edge.runtime import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
