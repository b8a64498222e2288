"""Calibration sets: the frames that set the ranges of the quantisers."""
