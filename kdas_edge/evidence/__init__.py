"""Proof that a bundle is what it claims to be. No torch here."""
