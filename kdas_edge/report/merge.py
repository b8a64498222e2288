"""Joining the benchmarks of several machines into one result, for one page."""

from collections.abc import Sequence

from kdas_edge.bench.accuracy_results import AccuracyEntry, RobustnessEntry
from kdas_edge.bench.measurement_results import ThroughputEntry
from kdas_edge.bench.results import (
    BenchResult,
    DataRecord,
    Environment,
    MachineRecord,
    MeasuredModel,
    Row,
    SettingsRecord,
)


def join(parts: Sequence[tuple[str, BenchResult]]) -> BenchResult:
    """Join results, for example of several machines.

    Latencies always stand side by side. Accuracies of a data set are left out, and a note says so,
    where the files were computed on other images under the same name.

    Args:
        parts: a label (the file's name) and the result of each file.

    Returns:
        One result; with more than one part, rows carry `machine`, and `environments` replaces
        `environment` on the page.
    """
    if len(parts) == 1:
        return parts[0][1]
    labels = _labels([label for label, _ in parts])
    labelled = list(zip(labels, (results for _, results in parts), strict=True))
    conflicting = _conflicts([results for _, results in parts])
    models: dict[str, MeasuredModel] = {}
    data: dict[str, DataRecord] = {}
    rows: list[Row] = []
    accuracy: list[AccuracyEntry] = []
    throughput: list[ThroughputEntry] = []
    robustness: list[RobustnessEntry] = []
    for label, results in labelled:
        renamed = _renamed(models, results.models, label)
        models |= {renamed[name]: model for name, model in results.models.items()}
        data |= {name: one for name, one in results.data.items() if name not in conflicting}

        def moved(model: str, renamed: dict[str, str] = renamed, label: str = label) -> _Place:
            return {"model": renamed[model], "machine": label}

        rows += [row.model_copy(update=moved(row.model)) for row in results.rows]
        accuracy += [
            entry.model_copy(update=moved(entry.model))
            for entry in results.accuracy
            if entry.dataset not in conflicting
        ]
        throughput += [one.model_copy(update=moved(one.model)) for one in results.throughput]
        # the same model in the same runtime gives the same masks on another machine
        measured = {(entry.key, entry.dataset) for entry in robustness}
        same = [
            entry.model_copy(update={"model": renamed[entry.model]})
            for entry in results.robustness
            if entry.dataset not in conflicting
        ]
        robustness += [entry for entry in same if (entry.key, entry.dataset) not in measured]
    return parts[0][1].model_copy(
        update={
            "environments": [
                MachineRecord(label=label, environment=results.environment)
                for label, results in labelled
            ],
            "models": models,
            "data": data,
            "rows": rows,
            "accuracy": accuracy,
            "throughput": throughput,
            "robustness": robustness,
            "notes": [
                *machine_lines([(label, results.environment) for label, results in labelled]),
                *(_not_compared(name) for name in conflicting),
                *differing_settings([(label, results.settings) for label, results in labelled]),
            ],
        }
    )


def machine_lines(machines: Sequence[tuple[str, Environment]]) -> list[str]:
    """One line for each machine: processor, cores, memory."""
    return [
        f"{label}: {machine.cpu}, {machine.cpus_usable} of {machine.cpus_logical or '?'} CPUs, "
        f"{machine.memory_gib if machine.memory_gib is not None else '?'} GiB, {machine.system}"
        for label, machine in machines
    ]


def differing_settings(settings: Sequence[tuple[str, SettingsRecord]]) -> list[str]:
    """One line for each setting that is not the same in all files, with its value in each."""
    lines = []
    for name in SettingsRecord.model_fields:
        values = [(label, getattr(one, name)) for label, one in settings]
        if any(value != values[0][1] for _, value in values):
            said = ", ".join(f"{_said(value)} ({label})" for label, value in values)
            lines.append(f"measured with different settings: {name.replace('_', ' ')} {said}")
    return lines


_Place = dict[str, str]


def _said(value: object) -> str:
    return "none" if value is None else str(value)


def _not_compared(name: str) -> str:
    return (
        f"Accuracies on {name} are not compared and left out: the files were computed on "
        "different images. Latencies can still be compared."
    )


def _conflicts(results: Sequence[BenchResult]) -> list[str]:
    """Names of data sets whose images differ between the files."""
    seen: dict[str, set[str]] = {}
    for part in results:
        for name, record in part.data.items():
            seen.setdefault(name, set()).add(record.sha256)
    return [name for name, digests in seen.items() if len(digests) > 1]


def _renamed(
    known: dict[str, MeasuredModel], models: dict[str, MeasuredModel], label: str
) -> dict[str, str]:
    """New names for models that share a name with another model of an earlier file."""
    return {
        name: name if name not in known or known[name].files == model.files else f"{name} ({label})"
        for name, model in models.items()
    }


def _labels(names: Sequence[str]) -> list[str]:
    return [
        name if names.count(name) == 1 else f"{name} {names[: index + 1].count(name)}"
        for index, name in enumerate(names)
    ]
