"""Accuracy protocols. No torch here."""
