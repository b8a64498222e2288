"""Distil, quantise, export and benchmark polyp-segmentation networks for edge devices."""

__version__ = "0.1.0"
