"""`kdas-edge eval`: one model, or one folder of maps, on data sets; typed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge import environment
from kdas_edge.bench.accuracy import data_fingerprint, evaluate, evaluate_maps
from kdas_edge.bench.accuracy_results import AccuracyEntry
from kdas_edge.bench.entries import accuracy_entry
from kdas_edge.bench.models import describe, is_checkpoint, lineage_of, precisions, predictor
from kdas_edge.bench.result_base import PROTOCOLS, AccuracyKey, Protocol, properties
from kdas_edge.bench.results import Environment, EvaluationResult
from kdas_edge.bundle.reader import Bundle
from kdas_edge.console import progress
from kdas_edge.data.layout import (
    TRAIN,
    ImageSet,
    Pair,
    find_pairs,
    list_images,
    read_pair,
    set_folders,
)
from kdas_edge.errors import KdasEdgeError, UserError, last_line
from kdas_edge.files import real_path, staged_directory
from kdas_edge.image_files import image_size
from kdas_edge.runtime.backends import open_backend
from kdas_edge.runtime.targets import Target


def evaluate_model(
    bundle: Bundle,
    sets: dict[str, ImageSet],
    protocols: Sequence[Protocol],
    target: Target,
    precision: str,
    limit: int | None = None,
    maps_out: Path | None = None,
    overwrite: bool = False,
) -> EvaluationResult:
    """Evaluate one model on every set.

    Args:
        bundle: of `bench.models.open_model`.
        sets: name to image set.
        protocols: `paper`, `deploy` or both.
        target: where to run.
        precision: which of the model's files.
        limit: only the first so many images of each set.
        maps_out: write the probability maps as `<maps_out>/<set>/<stem>.png`, 8-bit grey at the
            size of the masks.
        overwrite: replace `maps_out`.

    Raises:
        UserError: absent device, missing model file, unreadable image.
        KdasEdgeError: the runtime failed on an image.
    """
    backend = open_backend(bundle, precision, target)
    key = AccuracyKey(bundle.name, precision, str(target))
    entries: list[AccuracyEntry] = []

    def run(folder: Path | None) -> None:
        for name, image_set in sets.items():
            pairs = image_set.pairs[:limit]
            write = _map_writer(folder / name) if folder is not None else None
            with progress(len(pairs), f"{bundle.name} {precision} on {name}") as advance:
                try:
                    scores = evaluate(
                        predictor(bundle, backend),
                        image_set,
                        protocols,
                        bundle.manifest.threshold,
                        limit,
                        advance,
                        write,
                        lineage_of(bundle),
                    )
                except (KdasEdgeError, OSError):
                    raise
                except Exception as error:
                    raise KdasEdgeError(
                        f"{bundle.name} {precision} failed on {target}: {last_line(error)}"
                    ) from error
            digest = data_fingerprint(image_set, limit)
            entries.extend(accuracy_entry(s, key, data_sha256=digest) for s in scores.values())

    try:
        if maps_out is None:
            run(None)
        else:
            with staged_directory(maps_out, overwrite) as staging:
                run(staging)
    finally:
        backend.close()
    return EvaluationResult(
        name=bundle.name,
        model=describe(bundle),
        precision=precision,
        target=str(target),
        effective=properties(backend.effective),
        threshold=bundle.manifest.threshold,
        environment=Environment(**environment.describe()),
        accuracy=entries,
    )


def evaluate_map_folder(
    maps: Path, data: Path, protocols: Sequence[Protocol], threshold: float = 0.5
) -> EvaluationResult:
    """Score a folder of probability maps against one set.

    Args:
        maps: folder of 8-bit grey maps, one per mask, paired by stem.
        data: folder of the set, with `masks/`.
        protocols: `paper`, `deploy` or both.
        threshold: of the deploy protocol, 0…1.

    Raises:
        UserError: no `masks/`, or a map that is missing, unreadable or of another size.
    """
    masks = data / "masks"
    if not masks.is_dir():
        raise UserError(f"{data} has no folder masks/; name the folder of one set with --data")
    name = real_path(data).name
    count = len(list_images(masks))
    with progress(count, f"scoring maps of {name}") as advance:
        scores = evaluate_maps(maps, masks, name, protocols, threshold, advance)
    key = AccuracyKey(f"maps {maps.name}", "", "")
    return EvaluationResult(
        name=key.model,
        threshold=threshold,
        environment=Environment(**environment.describe()),
        accuracy=[accuracy_entry(result, key) for result in scores.values()],
    )


def choose_sets(
    data: Path, names: Sequence[str] | None = None, mask_values: str | None = None
) -> dict[str, ImageSet]:
    """The sets to evaluate on: all test sets of `data`, or those named.

    Raises:
        UserError: no such folder or set, a set without masks, or a mask of another size than its
            image: told before anything is timed.
    """
    folders = {name: folder for name, folder in set_folders(data).items() if name != TRAIN}
    if not folders:
        raise UserError(f"{data} has no TestDataset/<set>/{{images,masks}}")
    unknown = [name for name in names or () if name not in folders]
    if unknown:
        raise UserError(f"{data} has no test set {unknown[0]!r}; it has {', '.join(folders)}")
    chosen = {name: folders[name] for name in names or folders}
    for name, folder in chosen.items():
        if not (folder / "masks").is_dir():
            others = [other for other in chosen if other != name]
            raise UserError(
                f"{folder} has no masks/, and accuracy needs one mask per image; add them"
                + (f", name the other sets with --sets {','.join(others)}" if others else "")
                + ", or leave out --data of kdas-edge bench to measure latency alone"
            )
    sets = {
        name: find_pairs(folder, name, mask_values=mask_values) for name, folder in chosen.items()
    }
    for image_set in sets.values():
        for pair in image_set.pairs:
            _check_sizes(pair)
    return sets


def choose_protocols(asked: str | None) -> tuple[Protocol, ...]:
    """The protocols of an option's value; both by default.

    Raises:
        UserError: an unknown protocol.
    """
    if asked not in (*PROTOCOLS, "both", None):
        raise UserError(f"--protocol {asked!r}: choose paper, deploy or both")
    return tuple(name for name in PROTOCOLS if asked in (name, "both", None))


def choose_precision(bundle: Bundle, target: Target, asked: str | None) -> str:
    """The precision asked for, or else int8 where the model has it, or else the finest."""
    if asked is not None:
        return asked
    held = precisions(bundle, target.runtime)
    return "int8" if "int8" in held else (held[0] if held else "fp32")


def default_target(bundle: Bundle) -> str:
    """Where a model runs by default: a checkpoint in torch, a bundle in OpenVINO."""
    return "torch:cpu" if is_checkpoint(bundle) else "openvino:CPU"


def _check_sizes(pair: Pair) -> None:
    """Compare the sizes that the files' headers state; no pixel is decoded if they agree."""
    sizes = []
    for path in (pair.image, pair.mask):
        try:
            sizes.append(image_size(path or pair.image))
        except UserError:  # reading the pair says it
            sizes.append((-1, len(sizes)))
    if sizes[0] != sizes[1]:
        read_pair(pair)


def _map_writer(folder: Path) -> Callable[[Pair, NDArray[Any]], None]:
    folder.mkdir(parents=True)

    def write(pair: Pair, probability: NDArray[Any]) -> None:
        grey = np.rint(probability * 255).astype(np.uint8)
        encoded = cv2.imencode(".png", grey)[1]
        (folder / f"{pair.name}.png").write_bytes(encoded.tobytes())

    return write
