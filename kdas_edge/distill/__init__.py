"""Losses of the KDAS paper and the one training loop."""
