"""What can be evaluated and benchmarked: a bundle, a run directory or a checkpoint.

A run or checkpoint is described as a bundle that was never written, with one torch model in it, so
that everything after this file sees bundles only.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.accuracy import Predict
from kdas_edge.bench.peer_pipeline import PeerPipeline
from kdas_edge.bench.peers import PeerBundle
from kdas_edge.bench.result_base import Role
from kdas_edge.bench.results import MeasuredModel, ModelOrigin
from kdas_edge.bundle.manifest import (
    FILE_NAME,
    PRECISIONS,
    FileRecord,
    Manifest,
    ModelFile,
    Normalisation,
    OutputContract,
    Provenance,
    SplitRecord,
)
from kdas_edge.bundle.reader import Bundle, open_bundle
from kdas_edge.data.lineage import Lineage, read_lineage
from kdas_edge.errors import KdasEdgeError, UserError
from kdas_edge.files import real_path, sha256
from kdas_edge.runtime.backends import FORMATS, Backend
from kdas_edge.runtime.segmenter import preprocess

_CHECKPOINTS = (".safetensors", ".pth", ".pt")
NOT_FINITE = "its output holds NaN or infinite numbers; train or export the model again"


def open_model(path: Path) -> Bundle:
    """Open a bundle, a run directory or a checkpoint.

    Args:
        path: a folder with `manifest.json`, the folder of a training run, or a `.safetensors` or
            authors' `.pth` checkpoint. The latter two need the `train` extra.

    Raises:
        UserError: absent, damaged, none of these, or a checkpoint where torch is not installed.
    """
    is_run = (path / "checkpoints").is_dir() or (path / "weights.safetensors").is_file()
    if is_run and not (path / FILE_NAME).exists():
        return _checkpoint(path)
    if path.suffix in _CHECKPOINTS and not path.is_dir():
        return _checkpoint(path)
    if path.is_file():
        raise UserError(
            f"{path} is no model; name a bundle's folder, a run's folder or a .safetensors file"
        )
    return open_bundle(path)


def precisions(bundle: Bundle, runtime: str) -> list[str]:
    """Precisions that a bundle holds for a runtime (`core` preset), fp32 first."""
    held = {
        model.precision
        for model in bundle.manifest.models
        if model.format == FORMATS[runtime] and model.preset == "core"
    }
    return [precision for precision in PRECISIONS if precision in held]


def predictor(bundle: Bundle, backend: Backend) -> Predict:
    """A function from a (H, W, 3) uint8 RGB frame to float32 polyp probabilities.

    Ours are (S, S), a peer's (H, W): see `bench.pipeline.Pipeline.probability`. It raises
    `KdasEdgeError` where the model gives NaN or infinite numbers.
    """
    # a model that was loaded for a batch gets the frame as often, and its first answer counts
    batch = backend.effective.get("batch", 1)
    assert isinstance(batch, int)
    peer = None
    if isinstance(bundle, PeerBundle):
        peer = PeerPipeline(bundle.name, bundle.config, backend, batch)

    def predict(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        if peer is not None:
            found = peer.probability(backend.infer(peer.prepare(frame)), *frame.shape[:2])
        else:
            x = preprocess(frame, bundle.manifest)
            found = backend.infer(np.repeat(x, batch, axis=0) if batch > 1 else x)[0, 1]
        if not np.isfinite(found).all():
            raise KdasEdgeError(NOT_FINITE)
        return found

    return predict


def unique_names(bundles: Sequence[Bundle]) -> list[str]:
    """A name for each bundle: its own, or with its folder where two share one.

    Raises:
        UserError: one model is given twice.
    """
    paths = [bundle_key(bundle) for bundle in bundles]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{path} is given twice; name each model once")
    names = [bundle.name for bundle in bundles]
    return [
        name if names.count(name) == 1 else f"{name} ({_short(bundle)})"
        for name, bundle in zip(names, bundles, strict=True)
    ]


def bundle_key(bundle: Bundle) -> str:
    """A string that tells two models apart: folder and, for checkpoints and peers, file."""
    if _kind(bundle) != "bundle":
        return str(bundle.path / bundle.manifest.models[0].path)
    return str(bundle.path)


def lineage_of(bundle: Bundle) -> Lineage:
    """Which images a model was trained on, as far as its bundle or run says."""
    if is_checkpoint(bundle):
        # a run of the first release knows them by their files, which no manifest holds
        return read_lineage(bundle.path / bundle.manifest.models[0].path)
    return Lineage.from_json([part.model_dump() for part in bundle.manifest.provenance.split])


def is_checkpoint(bundle: Bundle) -> bool:
    """True for a run or checkpoint that `open_model` described as a bundle."""
    return _kind(bundle) == "checkpoint"


def is_bundle(bundle: Bundle) -> bool:
    """True for an exported bundle; False for a checkpoint or a peer."""
    return _kind(bundle) == "bundle"


def describe(bundle: Bundle, role: Role = "student") -> MeasuredModel:
    """What a result file says about a model: contract, provenance, sizes and hashes."""
    manifest = bundle.manifest
    made = manifest.provenance
    return MeasuredModel(
        role=role,
        kind=_kind(bundle),
        # a result is published; the folders above the model are private
        folder=bundle.path.name,
        input_size=manifest.size,
        threshold=manifest.threshold,
        provenance=ModelOrigin(
            created=made.created,
            code_version=made.code_version,
            data_split_sha256=made.data_split_sha256,
            parameters=made.parameters,
            multiply_accumulates=made.multiply_accumulates,
        ),
        config=bundle.config if isinstance(bundle, PeerBundle) else None,
        files=dict(sorted(manifest.files.items())),
    )


def _checkpoint(path: Path) -> Bundle:
    """Describe a checkpoint as a bundle with one fp32 torch model."""
    try:
        from kdas_edge.export.presets import input_contract
        from kdas_edge.models.checkpoints import checkpoint_file, load_network
        from kdas_edge.models.zoo import multiply_accumulates, parameters
    except ImportError as error:
        raise UserError(
            f"{path} is a checkpoint and needs PyTorch; install it with pip install "
            "'kdas-edge[train]', or export it and name the bundle"
        ) from error
    network = load_network(path)
    architecture = network.architecture
    root = real_path(path if path.is_dir() else path.parent)
    file = checkpoint_file(path).relative_to(path if path.is_dir() else path.parent)
    size = architecture.size
    record = FileRecord(bytes=(root / file).stat().st_size, sha256=sha256(root / file))
    manifest = Manifest(
        name=real_path(path).name if path.is_dir() else path.stem,
        size=size,
        threshold=0.5,
        normalisation=Normalisation(mean=architecture.mean, std=architecture.std),
        inputs={"core": input_contract("core", size)},
        output=OutputContract(shape=(1, 2, size, size)),
        models=[
            ModelFile(precision="fp32", format="torch", preset="core", path=file.as_posix()),
        ],
        provenance=Provenance(
            created="",
            code_version="",
            packages={},
            recipe={"model": architecture.to_dict()},
            parameters=parameters(network),
            multiply_accumulates=multiply_accumulates(network, size),
            split=[SplitRecord(**part) for part in read_lineage(path).as_json()],
            notes={"kind": "checkpoint"},
        ),
        files={file.as_posix(): record},
    )
    return Bundle(root, manifest)


def _kind(bundle: Bundle) -> str:
    return str(bundle.manifest.provenance.notes.get("kind", "bundle"))


def _short(bundle: Bundle) -> str:
    return "/".join(Path(bundle_key(bundle)).parts[-2:])
