"""Images and masks on disk, splits, augmentation and synthetic scenes."""
