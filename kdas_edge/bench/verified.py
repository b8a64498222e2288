"""Rows of a bundle that does not do here what it did where it was made."""

from collections.abc import Sequence

from kdas_edge.bench.candidates import BenchCandidate
from kdas_edge.bench.models import is_bundle
from kdas_edge.errors import last_line
from kdas_edge.evidence.golden import check_golden
from kdas_edge.runtime.backends import FORMATS


def check_golden_vectors(group: Sequence[BenchCandidate]) -> None:
    """Run the golden frames through every loaded model of a bundle, as `kdas-edge verify` does.

    A model that fails keeps its numbers, and its row says why it is refused. Models loaded for a
    batch are left out: `verify` loads for one frame.
    """
    for one in group:
        model = one.bundle.model(one.row.precision, FORMATS[one.target.runtime])
        if one.failed or one.backend is None or model is None:
            continue
        if one.target.batch > 1 or not is_bundle(one.bundle):
            continue
        try:
            checks = list(check_golden(one.bundle, model, one.target, one.backend))
        except Exception as error:  # a golden file that cannot be read, or the runtime's own
            one.row.refused = last_line(error)
            continue
        failed = [check for check in checks if check.verdict == "fail"]
        if failed:
            check = failed[0]
            what = check.what.rpartition(": ")[2]
            one.row.refused = f"{what}: {check.expected}, found: {check.observed}"
