"""Quantised networks on disk, and fine-tuning them with the one training loop.

A quantised run holds `nncf_config.json` (which quantiser sits where) and
`checkpoints/best.safetensors` (weights and ranges). Neither is a pickle. A checkpoint that
`save_quantized` wrote has the configuration in its header too, so that the two cannot part.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdas_edge.data.dataset import TrainingData
from kdas_edge.distill.engine import FitResult, fit
from kdas_edge.distill.teacher import Teacher
from kdas_edge.errors import UserError, first_line
from kdas_edge.files import read_json, write_text_atomic
from kdas_edge.models.architecture import Architecture, SegmentationNetwork
from kdas_edge.models.checkpoints import ARCHITECTURE, BEST, check_finite, save_network
from kdas_edge.models.deploy import deploy_form
from kdas_edge.models.zoo import from_architecture
from kdas_edge.quantize.toolkit import import_nncf
from kdas_edge.recipe import QuantizeRecipe
from kdas_edge.run import Run

CONFIG = "nncf_config.json"
_Network = TypeVar("_Network", bound=nn.Module)
_PLACES = "quantizers"  # the key of the configuration in a checkpoint's header


def fine_tune(
    recipe: QuantizeRecipe,
    quantized: SegmentationNetwork,
    data: TrainingData,
    run: Run,
    teacher: Teacher | None = None,
) -> FitResult:
    """Fine-tune a quantised network, with the teacher and the losses of the recipe.

    `engine.precision: auto` means fp32 here: bf16 has 8 significant bits, its rounding is as
    coarse as the int8 grid that is being learnt.

    Raises:
        UserError: a loss that is not finite, or a checkpoint that cannot be resumed.
    """
    if recipe.engine.precision == "auto":
        engine = recipe.engine.model_copy(update={"precision": "fp32"})
        recipe = recipe.model_copy(update={"engine": engine})
    return fit(recipe, quantized, data, run, teacher)


def save_config(path: Path, quantized: nn.Module) -> None:
    """Write where the quantisers sit, as JSON; the weights and ranges are in the checkpoint."""
    nncf = import_nncf()
    write_text_atomic(path, json.dumps(nncf.torch.get_config(quantized), indent=1) + "\n")


def save_quantized(path: Path, quantized: SegmentationNetwork) -> None:
    """Write weights, ranges and the places of the quantisers into one file, atomically."""
    nncf = import_nncf()
    places = json.dumps(nncf.torch.get_config(quantized))
    save_network(path, quantized.state_dict(), quantized.architecture, {_PLACES: places})


def load_quantized(source: Path, checkpoint: Path = BEST) -> SegmentationNetwork:
    """Restore the quantised network of a run, in eval mode on the CPU.

    Args:
        source: a run of `kdas-edge quantize`.
        checkpoint: which of its checkpoints, relative to the run.

    Raises:
        UserError: not a quantised run, or a file that is truncated or does not fit the other.
    """
    path = source / checkpoint
    unfinished = UserError(
        f"{source} is not a finished quantised run (it lacks {CONFIG} or {checkpoint}); "
        "make one with `kdas-edge quantize`"
    )
    if not path.is_file():
        raise unfinished
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        architecture = Architecture.from_dict(json.loads(header[ARCHITECTURE]))
        config = json.loads(header[_PLACES]) if _PLACES in header else None
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is truncated or not a checkpoint ({error}); copy it again"
        ) from None
    if config is None:
        if not (source / CONFIG).is_file():
            raise unfinished
        config = read_json(source / CONFIG)
    network = deploy_form(from_architecture(architecture)).eval()
    check_finite(path, state)
    return restore(network, config, state, source)


def restore(
    network: SegmentationNetwork, config: dict[str, Any], state: dict[str, Tensor], source: Path
) -> SegmentationNetwork:
    """Put quantisers into a float network and fill weights and ranges.

    Args:
        network: float, of the right architecture; it becomes the quantised one.
        config: from `save_config`.
        state: from the checkpoint.
        source: named in errors.

    Raises:
        UserError: the configuration and the weights do not fit each other.
    """
    nncf = import_nncf()
    try:
        quantized: SegmentationNetwork = nncf.torch.load_from_config(network, config)
        name_quantizers_once(quantized)
        quantized.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, nncf.InternalError) as error:
        reason = first_line(error)
        raise UserError(
            f"{source}: {CONFIG} and the checkpoint do not fit ({reason}); quantise again"
        ) from None
    return quantized.eval()


def name_quantizers_once(quantized: _Network) -> _Network:
    """Make `state_dict` hold every tensor once, under its first name, and load such a one.

    NNCF registers one quantiser under several hooks where two branches must share a range. Their
    tensors then have several names, which safetensors refuses to write.
    """

    def drop(module: nn.Module, state: dict[str, Tensor], prefix: str, _meta: object) -> None:
        for name in _aliases(module):
            state.pop(prefix + name, None)

    def repeat(module: nn.Module, state: dict[str, Tensor], prefix: str, *_rest: object) -> None:
        for name, owner in _aliases(module).items():
            if prefix + owner in state:
                state.setdefault(prefix + name, state[prefix + owner])

    quantized.register_state_dict_post_hook(drop)
    quantized.register_load_state_dict_pre_hook(repeat)
    return quantized


def _aliases(quantized: nn.Module) -> dict[str, str]:
    """Further name → first name of each tensor that has several; hooks may have come and gone."""
    first: dict[int, str] = {}
    alias: dict[str, str] = {}
    members = [
        *quantized.named_parameters(remove_duplicate=False),
        *quantized.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in members:
        # a state dict drops the suffix under which NNCF stores ranges
        name = name.replace("._scale_param_storage", ".scale")
        name = name.replace("._input_range_param_storage", ".input_range")
        owner = first.setdefault(id(tensor), name)
        if owner != name:
            alias[name] = owner
    return alias
