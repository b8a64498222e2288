"""Networks on disk: safetensors with the architecture in the header, and the authors' `.pth`.

Our checkpoints are never pickles: opening one runs no code of whoever wrote it. The one pickle
that is read, the authors' published checkpoint, is opened by torch's restricted loader.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from timm.models.pvt_v2 import checkpoint_filter_fn as timm_names_of_pvt
from torch import Tensor

from kdas_edge.bundle.manifest import FILE_NAME
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.errors import UserError, first_line
from kdas_edge.files import write_bytes_atomic
from kdas_edge.models.architecture import Architecture
from kdas_edge.models.polyp_pvt import PolypPVT
from kdas_edge.models.zoo import architecture_of, from_architecture, matching_state
from kdas_edge.recipe_text import with_new_names
from kdas_edge.run import open_run

ARCHITECTURE = "architecture"
RECIPE = "recipe"
BEST = Path("checkpoints") / "best.safetensors"
# of a run that was published: its records and, in half precision, the network
PUBLISHED = Path("weights.safetensors")

_AUTHORS = (".pth", ".pt")
# The Polyp-PVT repository's names of the decoder's modules, and ours.
_AUTHORS_NAMES = {
    "Translayer2_0": "translate1",
    "Translayer2_1": "translate2",
    "Translayer3_1": "translate3",
    "Translayer4_1": "translate4",
    "CFM.conv_upsample1": "cfm.gate43",
    "CFM.conv_upsample2": "cfm.gate42",
    "CFM.conv_upsample3": "cfm.gate32",
    "CFM.conv_upsample4": "cfm.carry4",
    "CFM.conv_upsample5": "cfm.carry34",
    "CFM.conv_concat2": "cfm.join34",
    "CFM.conv_concat3": "cfm.join234",
    "CFM.conv4": "cfm.out",
    "ca.fc1": "cim.squeeze",
    "ca.fc2": "cim.excite",
    "sa.conv1": "cim.spatial",
    "SAM.conv_state": "sam.state",
    "SAM.conv_proj": "sam.project",
    "SAM.gcn.conv1": "sam.among_anchors",
    "SAM.gcn.conv2": "sam.among_states",
    "SAM.conv_extend": "sam.extend",
    "out_CFM": "head1",
    "out_SAM": "head2",
}

# PVTv2 by the channels of its first level and the blocks of its four.
_PVT_V2: dict[tuple[int, tuple[int, ...]], str] = {
    (32, (2, 2, 2, 2)): "pvt_v2_b0",
    (64, (2, 2, 2, 2)): "pvt_v2_b1",
    (64, (3, 4, 6, 3)): "pvt_v2_b2",
    (64, (3, 4, 18, 3)): "pvt_v2_b3",
    (64, (3, 8, 27, 3)): "pvt_v2_b4",
    (64, (3, 6, 40, 3)): "pvt_v2_b5",
}


def save_network(
    path: Path,
    model_state: Mapping[str, Tensor],
    architecture: Architecture,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write a network; a reader sees the old file or the new one, never a part.

    Args:
        path: the `.safetensors` file; its folder is made.
        model_state: `PolypPVT.state_dict()`, on any device.
        architecture: of the network; written into the file's header as JSON.
        extra: more strings for the header, for example the epoch, or `RECIPE` as JSON.

    Raises:
        UserError: the folder cannot be written.
    """
    metadata = {**(extra or {}), ARCHITECTURE: json.dumps(architecture.to_dict())}
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model_state.items()}
    write_bytes_atomic(path, save(tensors, metadata))


def load_network(source: Path) -> PolypPVT:
    """Read a network, in evaluation mode, on the CPU.

    Args:
        source: a run directory (its best checkpoint is taken), a published one
            (`weights.safetensors`), a bundle that holds its torch network, a `.safetensors`
            checkpoint, or a `.pth` of the Polyp-PVT or KDAS authors (keys as in the Polyp-PVT
            repository, any PVTv2 encoder).

    Raises:
        UserError: absent, truncated, or from another architecture; a bundle that is damaged, or
            without a torch network.
    """
    path = checkpoint_file(source)
    if path.suffix in _AUTHORS:
        return _load_authors(path)
    return _load_safetensors(path)


def checkpoint_file(source: Path) -> Path:
    """The file that holds the network of a run, a bundle or a checkpoint; see `load_network`.

    Raises:
        UserError: there is none; a bundle is damaged.
    """
    if not source.is_dir():
        if not source.is_file():
            raise UserError(f"{source} does not exist; check the path")
        return source
    if (source / FILE_NAME).is_file():
        bundle = open_bundle(source)
        model = bundle.model("fp32", "torch")
        if model is None:
            raise UserError(
                f"{source} is a bundle without its torch network; give the run or the checkpoint "
                "that it was exported from"
            )
        return bundle.file(model.path)
    for name in (BEST, PUBLISHED):
        if (source / name).is_file():
            return source / name
    raise UserError(
        f"{source / BEST} does not exist; the run has not finished its first epoch, was published "
        "without weights, or is no training run"
    )


def read_metadata(path: Path) -> dict[str, str]:
    """Return the strings in a checkpoint's header; the weights are not read.

    Raises:
        UserError: absent, truncated or not safetensors.
    """
    return _read_safetensors(path, with_tensors=False)[1]


def known_recipe(source: Path) -> dict[str, Any]:
    """How a network was trained: its run's recipe, or the one in a checkpoint's header.

    Args:
        source: a run directory, a bundle or a checkpoint.

    Returns:
        The recipe as plain values, in today's keys; empty where a checkpoint names none.

    Raises:
        UserError: absent or truncated, or the header's recipe is no JSON object.
    """
    if (source / FILE_NAME).is_file():
        return with_new_names(open_bundle(source, verify=False).manifest.provenance.recipe)
    if source.is_dir():
        if not (source / PUBLISHED).is_file() or (source / "run.json").is_file():
            recipe: dict[str, Any] = open_run(source)[1].model_dump(mode="json")
            return recipe
        source = source / PUBLISHED
    if source.suffix in _AUTHORS:
        return {}
    text = read_metadata(source).get(RECIPE, "{}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{source} has a damaged recipe in its header; write the checkpoint again")
    return with_new_names(found)


def _load_safetensors(path: Path) -> PolypPVT:
    state, metadata = _read_safetensors(path)
    if ARCHITECTURE not in metadata:
        raise UserError(
            f"{path} is not a kdas-edge checkpoint (no architecture in its header); encoder "
            "weights belong in model.pretrained"
        )
    try:
        architecture = Architecture.from_dict(json.loads(metadata[ARCHITECTURE]))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} has a damaged header, or one of another version of kdas-edge ({error}); copy "
            "it again, or use that version"
        ) from None
    return _fill(path, architecture, state)


def _read_safetensors(
    path: Path, with_tensors: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.keys() if with_tensors else ()
            return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path") from None
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} is truncated or not a safetensors file ({error}); copy it again"
        ) from None


def _fill(path: Path, architecture: Architecture, state: Mapping[str, Tensor]) -> PolypPVT:
    model = from_architecture(architecture)
    own = model.state_dict()
    problems = [f"{key!r} is missing" for key in own if key not in state]
    problems += [f"{key!r} is unknown" for key in state if key not in own]
    problems += [
        f"{key!r} is {tuple(state[key].shape)}, needed {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if problems:
        raise UserError(
            f"{path} is from another architecture than Polyp-PVT on {architecture.backbone} "
            f"with width {architecture.width} and stride {architecture.stride}: {problems[0]} "
            f"({len(problems)} differences); name a checkpoint that kdas-edge wrote"
        )
    check_finite(path, state)
    model.load_state_dict(dict(state))
    return model.eval()


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no numbers, as a training that diverged leaves them.

    Raises:
        UserError: a tensor holds NaN or an infinity.
    """
    for key, tensor in state.items():
        # in double precision the sum of finite weights is finite
        if tensor.is_floating_point() and not bool(tensor.double().sum().isfinite()):
            raise UserError(f"{path} holds NaN or infinity in {key!r}; train it again")


def _load_authors(path: Path) -> PolypPVT:
    state = _read_pickle(path)
    foreign = UserError(
        f"{path} is from another architecture: its keys are not those of the Polyp-PVT "
        "repository with a PVTv2 encoder; name PolypPVT.pth, or a checkpoint of kdas-edge"
    )
    first = state.get("Translayer2_0.conv.weight")
    encoder = {
        key.removeprefix("backbone."): tensor
        for key, tensor in state.items()
        if key.startswith("backbone.")
    }
    blocks = [re.match(r"block(\d)\.(\d+)\.", key) for key in encoder]
    depths = tuple(
        max((int(found[2]) + 1 for found in blocks if found and found[1] == level), default=0)
        for level in "1234"
    )
    if first is None or first.ndim != 4 or (first.shape[1], depths) not in _PVT_V2:
        raise foreign
    architecture = architecture_of(_PVT_V2[first.shape[1], depths], width=first.shape[0])

    model = from_architecture(architecture)
    ours: dict[str, Tensor] = {}
    try:
        matched = matching_state(timm_names_of_pvt(encoder, model.backbone), model.backbone)
    except (KeyError, ValueError):
        raise foreign from None
    ours.update({f"backbone.{key}": tensor for key, tensor in matched.items()})
    for key, tensor in state.items():
        module, _, rest = key.rpartition(".")
        for theirs, name in _AUTHORS_NAMES.items():
            if module == theirs or module.startswith(theirs + "."):
                ours[f"{name}{module[len(theirs) :]}.{rest}"] = tensor
    return _fill(path, architecture, ours)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises what the bytes lead it to
        raise UserError(
            f"{path} is truncated or not a checkpoint of weights ({first_line(error)}); download "
            "it again"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} holds no state dict; name a file of weights such as PolypPVT.pth")
    # written by DataParallel in some forks
    return {str(key).removeprefix("module."): tensor for key, tensor in state.items()}
