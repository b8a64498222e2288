"""The deliverable: manifest and reader. No torch here."""
