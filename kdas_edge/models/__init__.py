"""The network family, the registry of backbones and checkpoint files."""
