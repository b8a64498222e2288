"""`kdas-edge bench`: models × precisions × targets, latency and accuracy, as one result.

One target after the other: all models are loaded on it, timed in turns, scored, and closed again,
so that the thread pools of another runtime never disturb a measurement. The ratio to the teacher
is between rows of one target and comes from the same rounds.
"""

from collections.abc import Sequence

from kdas_edge import environment
from kdas_edge.bench.accuracy import data_fingerprint
from kdas_edge.bench.accuracy_results import RobustnessEntry
from kdas_edge.bench.candidates import BenchCandidate, Settings, load, precisions_of
from kdas_edge.bench.energy import EnergyMeter
from kdas_edge.bench.extras import (
    measure_energy,
    measure_startups,
    measure_throughputs,
    run_sustained,
)
from kdas_edge.bench.measurement_results import ThroughputEntry
from kdas_edge.bench.models import describe, unique_names
from kdas_edge.bench.result_base import Role
from kdas_edge.bench.results import BenchResult, DataRecord, Environment
from kdas_edge.bench.robustness import measure_robustness
from kdas_edge.bench.scoring import Scores, accuracy_entries, score, score_elsewhere
from kdas_edge.bench.timing import measure_latencies, profile
from kdas_edge.bench.verified import check_golden_vectors
from kdas_edge.bundle.reader import Bundle
from kdas_edge.data.layout import ImageSet
from kdas_edge.errors import UserError
from kdas_edge.runtime.targets import Target

__all__ = ["Settings", "run"]


def run(
    models: Sequence[Bundle],
    teacher: Bundle | None,
    targets: Sequence[Target],
    sets: dict[str, ImageSet],
    settings: Settings,
    accuracy_target: Target | None = None,
    peers: Sequence[Bundle] = (),
) -> BenchResult:
    """Measure every model in every precision on every target.

    Args:
        models: the students, or any models.
        teacher: what the ratios and differences refer to; its fp32 row on each target.
        targets: where to run.
        sets: data sets; none for latency alone, which then runs on noise.
        settings: iterations, limits, protocols.
        accuracy_target: compute accuracies on this target only and let all rows share them;
            by default once per runtime.
        peers: models from elsewhere, of `bench.peers.open_peer`.

    Raises:
        UserError: an unreadable image, or every row failed.
    """
    bundles = ([teacher] if teacher is not None else []) + [*models, *peers]
    names = unique_names(bundles)
    first = names[0] if teacher is not None else None
    roles: list[Role] = ["teacher"] if teacher is not None else []
    roles += ["student"] * len(models)
    roles += ["peer"] * len(peers)
    data = {
        name: DataRecord(
            images=len(image_set.pairs[: settings.limit]),
            sha256=data_fingerprint(image_set, settings.limit),
        )
        for name, image_set in sets.items()
    }
    meter = EnergyMeter()
    throughput: list[ThroughputEntry] = []
    robustness: list[RobustnessEntry] = []
    candidates: list[BenchCandidate] = []
    scores: Scores = {}
    before = environment.load_average()
    for target in targets:
        group = [
            BenchCandidate.of(name, role, precision, target, bundle)
            for name, role, bundle in zip(names, roles, bundles, strict=True)
            for precision in precisions_of(bundle, target, settings)
        ]
        candidates += group
        try:
            load(group)
            if settings.startup:
                measure_startups(group)
            measure_latencies(group, sets, settings)
            check_golden_vectors(group)
            if settings.energy:
                measure_energy(group, sets, meter)
            if settings.profile:
                profile(group, sets)
            if sets and accuracy_target is None:
                score(group, sets, settings, scores)
            if sets and settings.robustness and not robustness:
                robustness = measure_robustness(group, sets, settings, first)
            if settings.minutes > 0:
                run_sustained(group, sets, settings.minutes)
            if settings.throughput:
                throughput += measure_throughputs(group, sets, settings)
        finally:
            for candidate in group:
                candidate.close()
    if sets and accuracy_target is not None:
        shared = score_elsewhere(candidates, accuracy_target, sets, settings, scores)
    else:
        shared = {}
    if all(candidate.failed for candidate in candidates):
        reasons = list(dict.fromkeys(candidate.row.reason or "" for candidate in candidates))
        raise UserError(
            reasons[0] if len(reasons) == 1 else f"every row failed; the first: {reasons[0]}"
        )
    for candidate in candidates:
        row = candidate.row
        if sets and not candidate.failed:
            key = shared.get((row.model, row.precision), candidate.accuracy_key)
            row.accuracy_target = key.target
    return BenchResult(
        environment=Environment(**environment.describe(), load_average_before=before),
        settings=settings.record(),
        data=data,
        models={
            name: describe(bundle, role)
            for name, role, bundle in zip(names, roles, bundles, strict=True)
        },
        rows=[candidate.row for candidate in candidates],
        throughput=throughput,
        accuracy=accuracy_entries(
            scores, first, {name: record.sha256 for name, record in data.items()}
        ),
        robustness=robustness,
    )
