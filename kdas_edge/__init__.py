"""Distil, quantise, export and benchmark polyp-segmentation networks for edge devices."""

from kdas_edge.offline import switch_off_telemetry

__version__ = "0.1.0"

switch_off_telemetry()
