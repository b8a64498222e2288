"""The search over settings of post-training quantisation."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from kdas_edge.quantize.attempts import Attempt
from kdas_edge.recipe import PtqRecipe

# Dice that one range per tensor may cost: ONNX Runtime computes nothing else in int8
PER_TENSOR_MAY_COST = 0.001
# a search calibrates each setting on at most so many frames, and the one it keeps on all
SEARCH_FRAMES = 100
# one setting with 100 and with 300 frames differed by more than this on 145 validation images: what
# is nearer to the best is no worse than it as far as anyone can tell
SAME_DICE = 0.002

_RANGES = "activation_ranges"
# what is changed against the recipe's own setting, with one range per tensor unless said
_CONVOLUTIONAL: tuple[dict[str, Any], ...] = (
    {},
    {"activation_ranges": "channel"},
    {"preset": "performance"},
    {"range_estimator": "minmax"},
    {"range_estimator": "quantile"},
    {"range_estimator": "histogram"},
    {"range_estimator": "mean_no_outliers"},
    {"fast_bias_correction": False},
    {"activation_ranges": "channel", "range_estimator": "quantile"},
    {"model_type": "none"},
)
_TRANSFORMER: tuple[dict[str, Any], ...] = (
    {},
    {"activation_ranges": "channel"},
    {"smooth_quant": 0.5},
    {"smooth_quant": 0.95},
    {"smooth_quant": 0.5, "activation_ranges": "channel"},
    {"preset": "performance"},
    {"range_estimator": "minmax"},
    {"range_estimator": "quantile"},
    {"range_estimator": "histogram"},
    {"fast_bias_correction": False},
)


def is_transformer(network: nn.Module) -> bool:
    """True for a network with layer normalisation, which is where activations have outliers."""
    return any(isinstance(module, nn.LayerNorm) for module in network.modules())


def settings_to_try(base: PtqRecipe, network: nn.Module) -> list[PtqRecipe]:
    """The settings of `--search`: the recipe's own first, then one change at a time, at most ten.

    Args:
        base: the recipe's own; what is not varied (overflow, ignored layers, ranges of weights)
            is taken from it, and the activation ranges too unless they are `auto`.
        network: decides between the list for convolutions and the one for transformers.
    """
    changes = _TRANSFORMER if is_transformer(network) else _CONVOLUTIONAL
    both = base.activation_ranges == "auto"
    start = base.model_copy(update={"activation_ranges": "tensor"}) if both else base
    found: list[PtqRecipe] = []
    for change in changes:
        allowed = {key: value for key, value in change.items() if both or key != _RANGES}
        candidate = start.model_copy(update=allowed)
        if candidate not in found:
            found.append(candidate)
    return found


def describe(setting: PtqRecipe) -> str:
    """A setting in words, what is at its usual value left out."""
    words = [f"one range per {setting.activation_ranges}"]
    if not setting.weights_per_channel:
        words.append("one per weight")
    words += [f"preset {setting.preset}", f"model type {setting.model_type}"]
    if setting.range_estimator != "default":
        words.append(f"ranges by {setting.range_estimator}")
    if setting.smooth_quant is not None:
        words.append(f"SmoothQuant {setting.smooth_quant:g}")
    if not setting.fast_bias_correction:
        words.append("no bias correction")
    if setting.ignored:
        words.append(f"{len(setting.ignored)} ignored")
    return ", ".join(words)


def choose(attempts: Sequence[Attempt]) -> Attempt:
    """The best of some attempts of post-training quantisation.

    The higher Dice wins. Dice above the float student's is rounding noise and counts as no loss;
    less than `SAME_DICE` between two is noise as well: there one that passes the gate comes first,
    then the one whose masks agree more with the float student's. The best
    with one range per tensor is taken even if the best with one per channel has up to
    `PER_TENSOR_MAY_COST` more.
    """
    best = {
        ranges: _best([attempt for attempt in attempts if attempt.ranges == ranges])
        for ranges in sorted({attempt.ranges for attempt in attempts})
    }
    tensor, channel = best.get("tensor"), best.get("channel")
    if tensor is None or channel is None:
        return next(iter(best.values()))
    # a difference of two means is not exact to the last bit
    worse = max(0.0, tensor.drop) - max(0.0, channel.drop)
    return channel if worse > PER_TENSOR_MAY_COST + 1e-9 else tensor


def _best(attempts: Sequence[Attempt]) -> Attempt:
    limit = min(max(0.0, attempt.drop) for attempt in attempts) + SAME_DICE
    near = [attempt for attempt in attempts if attempt.drop <= limit]
    return max(near, key=lambda attempt: (attempt.passed, attempt.agreement, attempt.dice))
