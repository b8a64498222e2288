"""Post-training quantisation with NNCF: the starting point of the fine-tuning."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdas_edge.models.architecture import SegmentationNetwork
from kdas_edge.models.deploy import deploy_form
from kdas_edge.quantize.attempts import Ranges
from kdas_edge.quantize.layers import ignored_operations
from kdas_edge.quantize.qat import name_quantizers_once
from kdas_edge.quantize.toolkit import check_compiler, import_nncf, quiet
from kdas_edge.quantize.weight_scales import set_safe_scales
from kdas_edge.recipe import PtqRecipe

# SmoothQuant moves range from activations to weights; NNCF's word for off is -1.
_OFF = -1.0
# our names of NNCF's sets of range estimators
_ESTIMATORS = {
    "minmax": "MINMAX",
    "mean_minmax": "MEAN_MINMAX",
    "median_minmax": "MEDIAN_MINMAX",
    "mean_no_outliers": "MEAN_NO_OUTLIERS_MINMAX",
    "quantile": "MEAN_QUANTILE",
    "histogram": "HISTOGRAM",
}


def post_training_quantize(
    network: SegmentationNetwork,
    samples: Sequence[Tensor],
    recipe: PtqRecipe,
    ranges: Ranges | None = None,
    arrange: bool = True,
) -> SegmentationNetwork:
    """Insert fake quantisers and set their ranges from calibration frames.

    Args:
        network: float, returns `(z1, z2)`; not changed, its deploy form is quantised.
        samples: normalised (1, 3, S, S) float32 tensors, all of the size that is deployed.
        recipe: how; see `PtqRecipe`.
        ranges: of activations before depthwise convolutions: one per `channel`, NNCF's choice, or
            one per `tensor`; by default the recipe's, where `auto` means `channel`. ONNX Runtime
            has no int8 convolution beside the former: the export moves them into the weights
            where nothing but ReLU or ReLU6 stands between. EfficientNet with SiLU loses its
            accuracy by the latter.
        arrange: False quantises the network as it was trained, to measure what the deploy form
            brings; such a network cannot be loaded again from a run.

    Returns:
        A trainable module in eval mode with the same outputs, on the network's device.

    Raises:
        UserError: NNCF or, on a GPU, its compiler is missing; or a layer to ignore is unknown.
    """
    nncf = import_nncf()
    network = deploy_form(network).eval() if arrange else network.eval()
    device = next(network.parameters()).device
    check_compiler(device.type == "cuda")
    ignored = ignored_operations(network, samples[0].shape[-1], recipe.ignored)
    if ranges is None:
        ranges = "tensor" if recipe.activation_ranges == "tensor" else "channel"
    with quiet():
        quantized: SegmentationNetwork = nncf.quantize(
            network,
            nncf.Dataset([sample.to(device) for sample in samples]),
            preset=nncf.QuantizationPreset[recipe.preset.upper()],
            model_type=nncf.ModelType.TRANSFORMER if recipe.model_type == "transformer" else None,
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False) if ignored else None,
            advanced_parameters=_advanced(nncf, recipe, ranges),
        )
    quantized = name_quantizers_once(quantized.eval())
    if recipe.overflow_fix != "disable":
        set_safe_scales(quantized, samples[0].to(device), recipe.overflow_fix == "enable")
    return quantized


def _advanced(nncf: Any, recipe: PtqRecipe, ranges: Ranges) -> Any:
    from nncf.quantization.advanced_parameters import QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    parameters = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix[recipe.overflow_fix.upper()],
        # None leaves the choice to NNCF: per channel before depthwise convolutions only
        activations_quantization_params=QuantizationParameters(
            per_channel=None if ranges == "channel" else False
        ),
        weights_quantization_params=QuantizationParameters(
            per_channel=None if recipe.weights_per_channel else False
        ),
        # NNCF has no other bias correction for torch
        disable_bias_correction=not recipe.fast_bias_correction,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(
            convolution=_OFF, matmul=_OFF if recipe.smooth_quant is None else recipe.smooth_quant
        ),
    )
    if recipe.range_estimator != "default":
        estimator = getattr(RangeEstimatorParametersSet, _ESTIMATORS[recipe.range_estimator])
        parameters.activations_range_estimator_params = estimator
    return parameters
