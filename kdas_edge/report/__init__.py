"""Results made visible: tables, plots, the page. Needs the `report` extra, except the tables."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdas_edge.errors import UserError

if TYPE_CHECKING:
    from kdas_edge.bench.results import BenchResult
    from kdas_edge.report.gallery import Case

_NEEDED = {"altair": "altair", "jinja2": "jinja2", "vl_convert": "vl-convert-python"}


def write_page(path: Path, results: "BenchResult", overlays: "Sequence[Case]" = ()) -> None:
    """Write one self-contained HTML page, and every plot as PNG and SVG beside it.

    Args:
        path: the `.html` file.
        results: of `kdas-edge bench`, or several joined by `merge.join`.
        overlays: cases of `gallery.make_gallery`; none for a page without images.

    Raises:
        UserError: the `report` extra is not installed, or the folder cannot be written.
    """
    check_installed(path)
    from kdas_edge.report import page

    page.write(path, results, overlays)


def check_installed(path: Path | None = None) -> None:
    """Refuse early what would fail after minutes of measuring.

    Raises:
        UserError: a package of the `report` extra is absent, or `path` is a folder.
    """
    for module, package in _NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"the page needs {package}; install it with pip install 'kdas-edge[report]'"
            )
    if path is not None and path.is_dir():
        raise UserError(f"{path} is a folder; name the page's file, for example {path}/report.html")
