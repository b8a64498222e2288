"""Recipes: one typed YAML file that fully describes a training or a quantisation.

Every field has a default or is required, unknown keys are refused with the nearest known one, and
any field can be set on the command line as `key.subkey=value`. The resolved recipe is written into
the run, so that a run says by itself what made it.
"""

import copy
import difflib
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kdas_edge.errors import UserError
from kdas_edge.recipe_text import apply_override, old_name, read_values, with_new_names

# images in memory as 8-bit RGB: more of a side than any network of ours is fed
_LARGEST = 2048
# torch and numpy take no larger seed
_Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_source(value: Any) -> Any:
    """A folder alone is its path."""
    return [{"root": one} if isinstance(one, str) else one for one in _as_list(value)]


def _as_text(value: Any) -> Any:
    """YAML turns `1` into a number and `[1, 2]` into a list."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, int | float) else value


class SourceRecipe(_Section):
    """A folder of labelled images, or of polyp-free frames, beside `data.root`."""

    root: str = Field(description="the folder")
    layout: str | None = Field(
        None, description="layout YAML, see kdas-edge data import; null: PraNet's, or images/masks/"
    )
    centres: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        [],
        description="the centre: its name; a pattern whose bracket is the centre; or NAME=PATTERN, "
        "several; none: the folder's name",
    )
    share: float | None = Field(
        None, gt=0, le=1, description="of the frames with a polyp in a batch; null: as they come"
    )
    mask_values: Annotated[str | None, BeforeValidator(_as_text)] = None
    group_by: str | None = Field(None, description="as data.group_by")


class DataRecipe(_Section):
    """Which images, at which size, and how the validation split is cut."""

    root: str = Field(description="PraNet layout, or a folder with images/ and masks/")
    mask_values: Annotated[str | None, BeforeValidator(_as_text)] = Field(
        None,
        description="values of the masks that are polyp, such as 1,2 or 128-255 or #ff0000; null: "
        "all that is not background (see kdas-edge data check --help)",
    )
    size: int = Field(352, ge=64, le=_LARGEST, multiple_of=32, description="side in pixels")
    validation: float = Field(0.1, ge=0, lt=1, description="fraction of the training images")
    split_seed: _Seed = Field(0, description="seed of the split; apart from the training seed")
    group_by: str | None = Field(
        None,
        description="images that stay on one side of the split (patient, examination, video): "
        "folder:N below images/, a regular expression on the file name whose first bracket is the "
        "group, or FILE.csv[:COLUMN]; null: near-duplicate images alone",
    )
    centres: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        [], description="the centre or centres of data.root, as in data.sources"
    )
    share: float | None = Field(
        None, gt=0, le=1, description="of data.root in the frames with a polyp of a batch"
    )
    sources: Annotated[list[SourceRecipe], BeforeValidator(_as_source)] = Field(
        [], description="more labelled folders, of other centres"
    )
    negatives: Annotated[list[SourceRecipe], BeforeValidator(_as_source)] = Field(
        [], description="folders of frames that are known to be polyp-free; they need no masks"
    )
    polyp_free_share: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of polyp-free samples in a batch, of every centre that has such; null: "
        "as they come",
    )
    leave_centre_out: str | None = Field(
        None, description="centre that is not trained on but tested on at the end"
    )
    limit: int | None = Field(None, ge=4, description="a trial: use only N of the pairs")
    labelled_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="a trial: use the masks of this fraction of the training images; on the others "
        "only the teacher's terms count, and without a teacher they are left out",
    )
    unlabelled: str | None = Field(
        None,
        description="folder of images and videos without masks, for the teacher's terms only",
    )
    pseudo_label_consistency: float = Field(
        0.9,
        ge=0,
        le=1,
        description="frames without masks are left out where the teacher's masks of the frame and "
        "its flips overlap less than this (mean Dice); 0 keeps all",
    )
    unlabelled_stride: int = Field(
        25, ge=1, description="of videos in data.unlabelled, one frame in so many"
    )
    cache: str | None = Field(
        None, description="folder for the decoded images of a set that does not fit into memory"
    )
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="decoded images that may be held in memory; null: half of what is free",
    )
    terms: str | None = Field(
        None, description="terms of use of the images; the model card prints them"
    )
    citation: str | None = Field(
        None, description="what to cite for the images; the model card prints it"
    )
    epoch_images: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="images an epoch, drawn anew each time; null: all of them once",
    )


class ModelRecipe(_Section):
    """Polyp-PVT on a timm backbone."""

    backbone: str = Field("pvt_v2_b0", description="any timm name with strides 4, 8, 16, 32")
    width: int = Field(32, ge=8, le=256, multiple_of=8, description="channels of the decoder")
    stride: Literal[8, 4] = Field(
        8,
        description="pixels of the image to one of the decoder's finest map: 8 as published; 4 "
        "costs about a fifth more, and helped images of 192 pixels a little",
    )
    pretrained: bool | str = Field(
        False, description="true: timm's hub; a path: local safetensors; false: random"
    )
    init_from: str | None = Field(
        None, description="run or checkpoint whose weights to begin with: the whole network"
    )
    init_decoder_from: str | None = Field(
        None,
        description="run or checkpoint, the teacher as a rule, whose decoder to begin with; the "
        "encoder may be another",
    )
    drop_path: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_beginning(self) -> "ModelRecipe":
        if self.init_from is not None and self.init_decoder_from is not None:
            raise ValueError(
                f"model.init_from {self.init_from!r} brings a decoder, and model.init_decoder_from "
                f"{self.init_decoder_from!r} another; leave one of them out"
            )
        return self


class AugmentRecipe(_Section):
    """One joint geometric transform for image and mask, then colour; all on the device."""

    flip: bool = True
    rotate: float = Field(90.0, ge=0, le=180, description="uniform in ± this many degrees")
    scale: tuple[float, float] = Field((1.0, 1.0), description="zoom factor, uniform in log")
    shift: float = Field(0.0, ge=0, le=0.5, description="± this fraction of the side")
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    hue: float = Field(0.0, ge=0, le=0.5, description="± this fraction of the colour circle")
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian blur")
    noise: float = Field(0.0, ge=0, le=0.2, description="largest standard deviation, of 0…1")
    bubbles: float = Field(0.0, ge=0, le=1, description="probability of bubbles on the mucosa")
    coding: float = Field(0.0, ge=0, le=1, description="probability of JPEG, of quality 5 to 60")
    windows: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of samples that are windows of 35 to 100 % of the side, half of them "
        "with polyp, half without",
    )
    screen: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability of the picture on an endoscopy tower's screen: black border, "
        "octagon or circle, text, position panel, second picture",
    )


# what compares the insides of student and teacher
FEATURE_VARIANTS = ("pairwise", "decoder_inputs")
# what needs no more of the teacher than its probability
CACHEABLE_VARIANTS = ("soft_labels", "output_match")


class LossRecipe(_Section):
    """The loss, equation 8 of the paper; the reduction of the KL decides the teacher's share."""

    variant: Literal[
        "supervised",
        "kl",
        "attention_kd",
        "attention_kd_sgm",
        "kdas",
        "released_code",
        "soft_labels",
        "output_match",
        "pairwise",
        "decoder_inputs",
    ] = "kdas"
    segmentation: Literal["bce_dice", "structure"] = "bce_dice"
    temperature: float = Field(2.0, gt=0)
    teacher_weight: float = Field(0.2, ge=0, description="the 0.2 of equation 8")
    segmentation_weight: float = Field(0.8, ge=0, description="the 0.8 of equation 8")
    kl_axis: Literal["positions", "rows"] = Field(
        "positions", description="one distribution per image, or one per row of the map"
    )
    kl_reduction: Literal["sum", "mean"] = Field(
        "sum", description="over positions; 'mean' divides by H·W; little is left then"
    )
    teacher_scale: float = Field(1.0, ge=0, description="extra factor on the teacher terms")


class ScheduleRecipe(_Section):
    """Epochs, optimiser, learning rate and what is done to gradients and weights."""

    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(16, ge=1, le=4096, description="over all processes together")
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    decay: Literal["constant", "cosine"] = "cosine"
    warmup: float = Field(0.0, ge=0, lt=1, description="fraction of all steps")
    clip: float = Field(0.5, ge=0, description="clip of each gradient value; 0 is off")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0 is off")
    scales: list[Annotated[float, Field(gt=0, le=4)]] = Field(
        [1.0], min_length=1, max_length=16, description="training sizes, times data.size"
    )
    scale_mode: Literal["each", "random"] = Field(
        "each", description="one optimiser step per scale (published), or one random scale per step"
    )
    freeze_batch_norm_from: float = Field(
        1.0, ge=0, le=1, description="batch-norm statistics fixed from this fraction of the epochs"
    )
    calibrate_threshold: bool = Field(
        False,
        description="at the end, shift the logits so that 0.5 is the best threshold on the "
        "validation split",
    )


class EngineRecipe(_Section):
    """How the loop runs; nothing here changes what is learnt, up to rounding."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; null: all")
    log_interval: int = Field(
        10,
        ge=1,
        le=100_000,
        description="steps between two readings of the losses; a CPU and a GPU do not wait for "
        "each other between them, and a loss that is no number ends the run at the next",
    )
    checkpoint_minutes: float = Field(2.0, gt=0, description="checked when the losses are read")
    overlay_every: int = Field(5, ge=0, description="epochs between validation overlays; 0: never")


def _variant_by_teacher(values: Any) -> Any:
    """Where the recipe names no variant: KDAS if there is a teacher, else supervised."""
    if isinstance(values, dict):
        loss = values.get("loss")
        if loss is None or (isinstance(loss, dict) and "variant" not in loss):
            variant = "supervised" if values.get("teacher") is None else "kdas"
            values = {**values, "loss": {**(loss or {}), "variant": variant}}
    return values


def _cache_needs_maps(cached: bool, loss: LossRecipe) -> None:
    if cached and loss.variant not in CACHEABLE_VARIANTS:
        raise ValueError(
            f"cache_teacher stores a probability, loss.variant {loss.variant!r} needs the "
            "teacher's logits; set loss.variant: soft_labels, or cache_teacher: false"
        )


def _features_of_one_pass(tta: int, loss: LossRecipe) -> None:
    if tta > 1 and loss.variant in FEATURE_VARIANTS:
        raise ValueError(
            f"teacher_tta {tta} averages outputs, loss.variant {loss.variant!r} takes "
            "features of one pass; set teacher_tta: 1"
        )


def _threshold_needs_validation(schedule: ScheduleRecipe | None, data: DataRecipe) -> None:
    if schedule is not None and schedule.calibrate_threshold and not data.validation:
        raise ValueError(
            "schedule.calibrate_threshold needs a validation split; set data.validation above 0, "
            "or schedule.calibrate_threshold: false"
        )


class TrainRecipe(_Section):
    """`kdas-edge train` and `kdas-edge distill`."""

    name: str = "run"
    seed: _Seed = 0
    data: DataRecipe
    model: ModelRecipe = ModelRecipe()
    teacher: str | None = Field(None, description="run or checkpoint of the teacher (distill)")
    teacher_size: int | None = Field(
        None,
        ge=64,
        le=_LARGEST,
        multiple_of=32,
        description="side of the teacher's input; null: as data.size",
    )
    teacher_tta: int = Field(
        1,
        ge=1,
        le=4,
        description="test-time augmentation: flips over which its outputs are averaged",
    )
    cache_teacher: bool = Field(
        False,
        description="run the teacher once on each image, before the training, and store its "
        "probabilities, instead of on the augmented image in each step; for loss.variant "
        "soft_labels and output_match",
    )
    augment: AugmentRecipe = AugmentRecipe()
    loss: LossRecipe = LossRecipe(variant="supervised")
    schedule: ScheduleRecipe
    engine: EngineRecipe = EngineRecipe()

    _variant = model_validator(mode="before")(_variant_by_teacher)

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> "TrainRecipe":
        if self.loss.variant != "supervised" and self.teacher is None:
            raise ValueError(
                f"loss.variant {self.loss.variant!r} needs a teacher; set teacher: RUN, "
                "or loss.variant: supervised"
            )
        if self.data.unlabelled is not None and self.teacher is None:
            raise ValueError(
                f"data.unlabelled {self.data.unlabelled!r} needs a teacher, as the images have no "
                "masks; set teacher: RUN, or data.unlabelled: null"
            )
        if self.loss.variant == "supervised" and self.teacher is not None:
            raise ValueError(
                "loss.variant 'supervised' does not use the teacher; set loss.variant: kdas, "
                "or leave the teacher out"
            )
        _cache_needs_maps(self.cache_teacher, self.loss)
        _features_of_one_pass(self.teacher_tta, self.loss)
        _threshold_needs_validation(self.schedule, self.data)
        return self


class CalibrationRecipe(_Section):
    """Which frames the quantiser sees; never a test image, see `kdas-edge calibrate`."""

    samples: int = Field(300, ge=1, description="frames to choose; a set brings its own number")
    source: str | None = Field(
        None,
        description="a set or manifest of `kdas-edge calibrate`, a folder of images or videos; "
        "null: the training split",
    )
    method: Literal["kcenter", "stratified", "random"] = "kcenter"


class PtqRecipe(_Section):
    """Post-training quantisation with NNCF."""

    preset: Literal["performance", "mixed"] = Field(
        "mixed", description="activations: symmetric, or asymmetric where it fits better (mixed)"
    )
    model_type: Literal["transformer", "none"] = "transformer"
    activation_ranges: Literal["auto", "tensor", "channel"] = Field(
        "auto",
        description="before depthwise convolutions: one range per tensor, one per channel, or per "
        "tensor unless that costs too much Dice. ONNX Runtime computes `channel` in int8 only "
        "where the export can move the ranges into the weights, that is behind ReLU and ReLU6",
    )
    weights_per_channel: bool = Field(
        True, description="one range per output channel of a weight; false: one per weight"
    )
    range_estimator: Literal[
        "default",
        "minmax",
        "mean_minmax",
        "median_minmax",
        "mean_no_outliers",
        "quantile",
        "histogram",
    ] = Field(
        "default",
        description="how activation ranges follow from the frames; default: mean of the frames' "
        "extremes per tensor, their extreme per channel",
    )
    smooth_quant: float | None = Field(
        None, ge=0, le=1, description="alpha of SmoothQuant, on matrix products; null: off"
    )
    overflow_fix: Literal["enable", "first_layer", "disable"] = Field(
        "enable",
        description="weights that cannot saturate on a CPU without VNNI, where `disable` changes "
        "2 % of the mask: the products of two neighbours have to fit into 16 bits",
    )
    fast_bias_correction: bool = Field(
        True, description="shift biases by the mean error of int8; false: leave them"
    )
    ignored: list[str] = Field(
        [], description="layers kept in float, by module name; backbone.blocks.0 means all below it"
    )


class MixedRecipe(_Section):
    """Layers returned to float where int8 does not pass the gate, the most sensitive first."""

    enabled: bool = True
    images: int = Field(24, ge=1, description="validation images on which layers are ranked")
    largest_share: float = Field(
        0.5, gt=0, le=1, description="of the layers that may return; above it int8 is given up"
    )


class QuantizeRecipe(_Section):
    """`kdas-edge quantize`: from a float run to a quantised run."""

    name: str = "quantized"
    seed: _Seed = 0
    data: DataRecipe
    student: str = Field(description="the float run, or a checkpoint")
    teacher: str | None = None
    teacher_size: int | None = Field(None, ge=64, le=_LARGEST, multiple_of=32)
    teacher_tta: int = Field(1, ge=1, le=4)
    cache_teacher: bool = False
    calibration: CalibrationRecipe = CalibrationRecipe()
    ptq: PtqRecipe = PtqRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    loss: LossRecipe = LossRecipe(variant="supervised")
    schedule: ScheduleRecipe | None = Field(None, description="QAT; null: post-training only")
    engine: EngineRecipe = EngineRecipe()
    search: bool = Field(False, description="try several settings of ptq, keep the best")
    max_drop: float = Field(
        0.01, ge=0, le=1, description="gate: mean Dice that may be lost on validation"
    )
    max_group_drop: float | None = Field(
        None, ge=0, le=1, description="gate on each group of polyp sizes as well; null: none"
    )
    accept_undecided: bool = Field(
        False, description="go on where the validation images are too few for a verdict"
    )
    mixed: MixedRecipe = MixedRecipe()

    _variant = model_validator(mode="before")(_variant_by_teacher)

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> "QuantizeRecipe":
        if self.schedule and self.loss.variant != "supervised" and self.teacher is None:
            raise ValueError(
                f"loss.variant {self.loss.variant!r} needs a teacher; set teacher: RUN, "
                "or loss.variant: supervised"
            )
        _cache_needs_maps(self.cache_teacher, self.loss)
        _features_of_one_pass(self.teacher_tta, self.loss)
        _threshold_needs_validation(self.schedule, self.data)
        return self


Recipe = TrainRecipe | QuantizeRecipe
_Kind = TypeVar("_Kind", TrainRecipe, QuantizeRecipe)


def load_recipe(
    kind: type[_Kind],
    source: Path | dict[str, Any] | None,
    overrides: list[str],
    recorded: bool = False,
) -> _Kind:
    """Read, override and validate a recipe.

    Args:
        kind: `TrainRecipe` or `QuantizeRecipe`.
        source: a YAML or JSON file, the same as a dictionary, or None for nothing but overrides.
        overrides: `key.subkey=value`; the value is text where the key is a name or a path, else it
            is read as YAML.
        recorded: it was written by a run, perhaps of the first release, whose keys are then read
            under their new names.

    Raises:
        UserError: unreadable file, unknown key (the nearest is suggested), a key that is called
            otherwise now, wrong type or range.
    """
    where = str(source) if isinstance(source, Path) else "recipe"
    values = read_values(source) if isinstance(source, Path) else copy.deepcopy(source or {})
    for override in overrides:
        apply_override(values, override, lambda key, text: _override_text(kind, key, text))
    if recorded:
        values = with_new_names(values)
    renamed = old_name(values)
    if renamed is not None:
        raise UserError(f"{where}: {renamed}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_problem(error, kind)}") from None


def _override_text(kind: type[BaseModel], key: str, text: str) -> str | bool | None:
    """The value of an override whose key takes text; YAML would read `no` and `2024` otherwise.

    Raises:
        LookupError: the key is unknown, or takes something else.
    """
    *sections, last = key.split(".")
    for section in sections:
        kind = _section_at(kind, section)
    annotation = kind.model_fields[last].annotation
    kinds = set(get_args(annotation) or (annotation,))
    if not kinds <= {str, bool, NoneType} or str not in kinds:
        raise LookupError(key)
    word = text.strip().lower()
    if NoneType in kinds and word in ("null", "none", "~", ""):
        return None
    if bool in kinds and word in ("true", "false"):
        return word == "true"
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text


def _first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    first = error.errors()[0]
    key = _short(".".join(str(part) for part in first["loc"]))
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, [str(part) for part in first["loc"][:-1]])
        close = difflib.get_close_matches(str(first["loc"][-1])[:60], known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    if first["type"] == "missing":
        return f"{key!r} is missing; set it in the recipe or as {key}=VALUE"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"]) if "ctx" in first else first["msg"]
    quotes = "; put it into quotes" if first["type"] == "string_type" else ""
    reason = f"{first['msg'][0].lower()}{first['msg'][1:]}"
    return f"{key} = {_short(repr(first['input']))}: {reason}{quotes}"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _section_at(kind: type[BaseModel], name: str) -> type[BaseModel]:
    """The section below a key; `LookupError` where the key is unknown or a value."""
    annotation = kind.model_fields[name].annotation
    for option in get_args(annotation) or (annotation,):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    raise LookupError(name)


def _fields_at(kind: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        kind = _section_at(kind, part)
    return list(kind.model_fields)


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML; `load_recipe` of it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
