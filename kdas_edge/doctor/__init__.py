"""What a machine can do, what disturbs a timing on it, and advice. No torch here."""
