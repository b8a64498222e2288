"""Python to begin a subprocess with, so that packages are missing in it."""


def without(names: tuple[str, ...]) -> str:
    """Every finder answers "no such module" for these names, as if they were not installed."""
    return f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            return None
        return self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
