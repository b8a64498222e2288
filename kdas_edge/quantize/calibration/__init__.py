"""Calibration sets: which frames set the ranges of the quantisers, and on what evidence."""
