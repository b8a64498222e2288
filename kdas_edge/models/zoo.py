"""The registry of networks: a name is data, and timm knows what it means.

An `Architecture` travels inside every checkpoint, so that no recipe is needed to use one.
"""

import contextlib
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.pvt_v2 import checkpoint_filter_fn as timm_names_of_pvt
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdas_edge.errors import UserError, first_line
from kdas_edge.models.architecture import Architecture
from kdas_edge.models.hub import hub_or_cache
from kdas_edge.models.polyp_pvt import PolypPVT
from kdas_edge.models.strided_depthwise import with_fast_strided_depthwise
from kdas_edge.recipe import ModelRecipe

STRIDES = (4, 8, 16, 32)

# Backbone families trained with another normalisation than timm records: EfficientNet-Lite saw
# (x - 127) / 128 on 0…255, which timm rounds to 0.5.
_NORMALISATION: dict[str, tuple[float, float]] = {"tf_efficientnet_lite": (127 / 255, 128 / 255)}

# Named by errors: one backbone of each kind that is known to work.
_EXAMPLES = "pvt_v2_b0, tf_efficientnet_b0, mobilenetv2_100, repvit_m1"


def build(recipe_model: ModelRecipe, size: int) -> PolypPVT:
    """Build the network of a recipe, with its initial weights.

    Args:
        recipe_model: backbone, width, stride, drop path and where the encoder's weights come from:
            timm's hub (`pretrained: true`), a local safetensors file with a timm state dict
            (`pretrained: path`; half precision is converted), or nowhere (random).
        size: side in pixels of the images.

    Returns:
        The network in training mode on the CPU.

    Raises:
        UserError: a backbone timm does not know or that lacks four levels at strides 4 to 32; a
            hub that cannot be reached; a file that is absent or of another backbone.
    """
    backbone, channels = _encoder(
        recipe_model.backbone, recipe_model.drop_path, recipe_model.pretrained is True
    )
    if isinstance(recipe_model.pretrained, str):
        _load_encoder(backbone, Path(recipe_model.pretrained), recipe_model.backbone)
    mean, std = _normalisation(recipe_model.backbone)
    architecture = Architecture(
        recipe_model.backbone, recipe_model.width, size, mean, std, recipe_model.stride
    )
    return PolypPVT(backbone, channels, architecture)


def from_architecture(architecture: Architecture) -> PolypPVT:
    """Build a network with random weights, to be filled from a checkpoint.

    Raises:
        UserError: this timm does not know the backbone.
    """
    backbone, channels = _encoder(architecture.backbone)
    return PolypPVT(backbone, channels, architecture)


def architecture_of(backbone: str, width: int = 32, size: int = 352) -> Architecture:
    """The architecture of a backbone, with the normalisation it was pretrained with.

    Raises:
        UserError: timm does not know the backbone.
    """
    _check_name(backbone)
    mean, std = _normalisation(backbone)
    return Architecture(backbone, width, size, mean, std)


def parameters(model: nn.Module) -> int:
    """Count the parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_accumulates(model: nn.Module, size: int) -> int:
    """Count the multiply-accumulates of one image of size × size pixels.

    Convolutions, linear layers and matrix products are counted (half of the floating-point
    operations of `torch.utils.flop_counter`); normalisation and activations are not.
    """
    was_training = model.training
    model.eval()
    image = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(was_training)
    return counter.get_total_flops() // 2


def matching_state(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of a timm state dict to the keys of a features-only model.

    timm writes `stages.0.x` in a classifier and `stages_0.x` in a feature extractor of the same
    network. Tensors that the extractor lacks (the classifier's head) are left out.

    Raises:
        KeyError: a weight of the model is missing, its key being the argument.
        ValueError: a tensor has another shape; the message says which.
    """
    by_name = {key.replace(".", "_"): tensor for key, tensor in state.items()}
    matched = {}
    for key, own in model.state_dict().items():
        tensor = by_name.get(key.replace(".", "_"))
        if tensor is None and key.endswith("num_batches_tracked"):
            tensor = own
        if tensor is None:
            raise KeyError(key)
        if tensor.shape != own.shape:
            raise ValueError(f"{key} is {tuple(tensor.shape)}, needed {tuple(own.shape)}")
        matched[key] = tensor
    return matched


def _check_name(name: str) -> None:
    if timm.is_model(name):
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"for example {_EXAMPLES}"
    raise UserError(f"timm {timm.__version__} knows no backbone {name!r}; {hint}")


def _normalisation(
    name: str,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    for family, (mean, std) in _NORMALISATION.items():
        if name.startswith(family):
            return (mean,) * 3, (std,) * 3
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return Architecture.mean, Architecture.std
    red, green, blue = config.mean
    red_std, green_std, blue_std = config.std
    return (red, green, blue), (red_std, green_std, blue_std)


def _encoder(
    name: str, drop_path: float = 0.0, pretrained: bool = False
) -> tuple[nn.Module, list[int]]:
    """Make the timm feature extractor with four levels; its channels come second."""
    _check_name(name)
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        raise UserError(
            f"backbone {name!r} takes only images of {config.input_size[-1]} pixels; "
            f"choose one without a fixed size, for example {_EXAMPLES}"
        )
    try:
        extractor: Any = timm.create_model(name, features_only=True)
    except Exception as error:  # timm has no common error for networks without feature maps
        raise UserError(
            f"backbone {name!r} gives no feature maps ({first_line(error)}); "
            f"for example {_EXAMPLES}"
        ) from None
    if "NHWC" in str(getattr(extractor, "output_fmt", "")):
        raise UserError(
            f"backbone {name!r} gives channels-last feature maps, which the decoder does not "
            f"read; for example {_EXAMPLES}"
        )
    reductions = list(extractor.feature_info.reduction())
    if not set(STRIDES) <= set(reductions):
        raise UserError(
            f"backbone {name!r} has levels at strides {reductions}, needed "
            f"{list(STRIDES)}; for example {_EXAMPLES}"
        )
    options: dict[str, Any] = {}
    if reductions != list(STRIDES):
        # the last level of a stride has seen the most layers
        last = {stride: index for index, stride in enumerate(reductions)}
        options["out_indices"] = tuple(last[stride] for stride in STRIDES)
    if drop_path:
        options["drop_path_rate"] = drop_path
    if options or pretrained:
        try:
            with hub_or_cache() if pretrained else contextlib.nullcontext():
                extractor = timm.create_model(
                    name, features_only=True, pretrained=pretrained, **options
                )
        except TypeError:
            if not drop_path:
                raise
            raise UserError(f"backbone {name!r} has no drop path; set model.drop_path: 0") from None
        except Exception as error:  # the hub raises errors of four libraries
            if not pretrained:
                raise
            raise UserError(
                f"cannot get the weights of {name!r} from timm's hub ({first_line(error)}); "
                "reach the network, or set model.pretrained to a local safetensors file or false"
            ) from None
    with_fast_strided_depthwise(extractor)
    return extractor, list(extractor.feature_info.channels())


def _load_encoder(backbone: nn.Module, path: Path, name: str) -> None:
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise UserError(f"model.pretrained: {path} does not exist; check the path") from None
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"model.pretrained: {path} is not a whole safetensors file ({first_line(error)}); "
            "copy it again"
        ) from None
    if name.startswith("pvt_v2"):
        state = timm_names_of_pvt(state, backbone)
    try:
        backbone.load_state_dict(matching_state(state, backbone))
    except KeyError as error:
        raise UserError(
            f"model.pretrained: {path} holds no {error.args[0]!r}; it is not of backbone {name!r}"
        ) from None
    except ValueError as error:
        raise UserError(
            f"model.pretrained: {path} is of another backbone than {name!r}: {error}"
        ) from None
