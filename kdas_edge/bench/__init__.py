"""Accuracy against latency, device by device. No torch here."""
