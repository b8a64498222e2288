"""The bundle that comes with the package: a distilled student, ready to run without a training."""

from pathlib import Path

from kdas_edge.bundle.manifest import FILE_NAME
from kdas_edge.errors import UserError

STUDENT = Path(__file__).resolve().parent.parent / "shipped" / "student"


def or_shipped(bundle: Path | None) -> Path:
    """Return `bundle`, or the shipped student if none is named.

    Raises:
        UserError: none is named and this installation has none.
    """
    if bundle is not None:
        return bundle
    if not (STUDENT / FILE_NAME).is_file():
        raise UserError(
            "no bundle is named, and this installation of kdas-edge has none of its own; name a "
            "bundle, or install the package again"
        )
    return STUDENT
