"""Running a bundle on a device. No torch here."""
