"""What may teach: a network, the size of its input, its flips, its cache and its consistency.

A teacher that runs in every step takes more time than the student that learns from it. Run once on
each image as it is, its map is moved along with the image in each augmentation, and a step costs
what a supervised one costs. Blur, noise and changes of colour are then seen by the student alone
(as in Noisy Student, arXiv 1911.04252). Only the probability is cached, in 8 bits; KDAS compares
the logits of both outputs, for which the teacher has to run in each step.
"""

import hashlib
import io
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdas_edge.console import info, progress
from kdas_edge.data.resident import ResidentSet
from kdas_edge.distill.features import FeatureHook, feature_layers
from kdas_edge.distill.schedule import side
from kdas_edge.distill.validation import mask_dice
from kdas_edge.distill.variants import VARIANTS, Compared, Outputs
from kdas_edge.errors import UserError
from kdas_edge.files import write_bytes_atomic
from kdas_edge.models.architecture import FullSize, SegmentationNetwork
from kdas_edge.models.checkpoints import load_network
from kdas_edge.models.inputs import network_input, resized
from kdas_edge.models.tta import flipped_outputs, with_tta
from kdas_edge.recipe import QuantizeRecipe, TrainRecipe

# the folder of cached maps, among the runs: the next student of a teacher finds them there
CACHE_FOLDER = ".teacher_maps"

# the image itself, left to right, upside down
_CONSISTENCY_FLIPS = 3
# of a probability that is kept in 8 bits: half a level from 0 and 1
_LEAST = 1 / 510
_BATCH = 8


class Teacher:
    """A frozen teacher: images in, supervision outputs out.

    Args:
        network: put into evaluation mode, without gradients.
        size: side of its input in pixels, at scale 1.
        tta: flips over which its outputs are averaged, 1 to 4.
        compares: the layers whose features it returns beside its outputs, if any.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        size: int,
        tta: int = 1,
        compares: Compared | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.size, self.tta = size, tta
        layers = feature_layers(network, compares)
        self._run: Any = FeatureHook(FullSize(with_tta(network, tta)), layers).eval()

    @classmethod
    def of_recipe(
        cls, recipe: TrainRecipe | QuantizeRecipe, student: SegmentationNetwork
    ) -> "Teacher | None":
        """Load the teacher that a recipe names; None where its loss needs none.

        Raises:
            UserError: absent or damaged, or it cannot be compared with the student.
        """
        variant = VARIANTS[recipe.loss.variant]
        if not variant.needs_teacher:
            return None
        if recipe.teacher is None:
            raise UserError(
                f"loss.variant {recipe.loss.variant!r} needs a teacher; set teacher: RUN"
            )
        network = load_network(Path(recipe.teacher))
        width, own = network.architecture.width, student.architecture.width
        if variant.compares == "decoder_inputs" and width != own:
            raise UserError(
                f"loss.variant 'decoder_inputs' compares decoders, the teacher's has width {width} "
                f"and the student's {own}; set model.width={width}, or choose another variant"
            )
        size = recipe.teacher_size or recipe.data.size
        return cls(network, size, recipe.teacher_tta, variant.compares)

    def prepare(self, device: torch.device, channels_last: bool, compiled: bool) -> None:
        """Move it to where it runs, arrange its memory and compile it, where asked."""
        self._run.to(device)
        if channels_last:
            self._run.to(memory_format=torch.channels_last)
        if compiled:
            self._run = torch.compile(self._run)

    @torch.no_grad()
    def __call__(self, images: Tensor, scale: float = 1.0) -> tuple[Outputs, tuple[Tensor, ...]]:
        """Segment a batch.

        Args:
            images: (B, 3, S, S) in 0…1.
            scale: of the training size; the input has `size` · scale pixels a side.

        Returns:
            The outputs (z1, z2), logits at the size of the input, and the features, which are
            none unless the loss compares them.
        """
        x = network_input(images, side(self.size, scale), self.network.architecture)
        outputs, features = self._run(x)
        return outputs, features

    def _device(self, images: Tensor) -> torch.device:
        """Where it runs; images of a set that is mapped into memory lie on the CPU."""
        return next((weight.device for weight in self.network.parameters()), images.device)

    # ------------------------------------------------------------------ cache

    def cache(
        self, data: ResidentSet, folder: Path | None = None, writes: bool = True
    ) -> ResidentSet:
        """Run once on each image, or find what an earlier run has cached.

        Args:
            data: the images, on any device.
            folder: of cached maps, one file for each teacher, its size, flips and the images.
            writes: false where another process keeps them.

        Returns:
            The same set with the teacher's maps, rounded to 1/255.

        Raises:
            UserError: `folder` cannot be written.
        """
        device = data.images.device
        file = None
        if folder is not None:
            file = folder / f"{self._digest(data)}.npz"
            maps = _read(file)
            if maps is not None:
                info(f"the teacher's maps are those of {file}")
                return replace(data, teacher=maps.to(device))
        maps = self._probabilities(data.images)
        if file is not None and writes:
            packed = io.BytesIO()
            np.savez_compressed(packed, maps=maps.cpu().numpy())
            write_bytes_atomic(file, packed.getvalue())
        return replace(data, teacher=maps)

    def _probabilities(self, images: Tensor) -> Tensor:
        """Return (N, 1, S, S) uint8, the probability in 1/255."""
        maps = torch.empty_like(images[:, :1])
        with progress(len(images), "running the teacher once on each image") as advance:
            for start in range(0, len(images), _BATCH):
                batch = images[start : start + _BATCH].to(self._device(images)).float() / 255
                (z1, z2), _ = self(batch)
                probability = resized(torch.sigmoid(z1.float() + z2.float()), images.shape[-1])
                maps[start : start + _BATCH] = (255 * probability).round().to(torch.uint8)
                advance(len(batch))
        return maps

    def _digest(self, data: ResidentSet) -> str:
        """Name what a map depends on: images, network, flips, size, normalisation."""
        network = self.network
        found = hashlib.sha256(f"{self.size} {self.tta} {network.architecture} {network}".encode())
        found.update(f"{network.architecture.mean} {network.architecture.std}".encode())
        for name, tensor in (("images", data.images), *sorted(network.state_dict().items())):
            found.update(f"{name} {tuple(tensor.shape)}".encode())
            found.update(tensor.cpu().contiguous().numpy())
        return found.hexdigest()[:32]

    # ------------------------------------------------------------------ consistency

    @torch.no_grad()
    def consistency(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compare the masks of each frame and its flips.

        Args:
            images: (N, 3, S, S) uint8, on any device.

        Returns:
            (N,) float64: mean Dice over the pairs of masks, flipped back; 1 for two empty ones.
            (N,) float64: fraction of the frame that is marked, mean over the flips.
        """
        full_size = FullSize(self.network)
        dice, fractions = [], []
        with progress(len(images), "running the teacher on frames without masks") as advance:
            for batch in images.split(_BATCH):
                x = batch.to(self._device(images)).float() / 255
                x = network_input(x, self.size, self.network.architecture)
                outputs = flipped_outputs(full_size, x, _CONSISTENCY_FLIPS)
                masks = [(z1 + z2 > 0).flatten(1) for z1, z2 in outputs]
                pairs = [mask_dice(masks[i], masks[j]) for i in range(len(masks)) for j in range(i)]
                dice.append(torch.stack(pairs).mean(0))
                fractions.append(torch.stack([mask.double().mean(1) for mask in masks]).mean(0))
                advance(len(x))
        return torch.cat(dice).cpu(), torch.cat(fractions).cpu()


def as_outputs(probability: Tensor) -> Outputs:
    """The two outputs of a teacher whose σ(z₁ + z₂) is `probability`, (B, 1, H, W) of 0…1."""
    half = torch.logit(probability.clamp(_LEAST, 1 - _LEAST)) / 2
    return half, half


def _read(file: Path) -> Tensor | None:
    """Return cached maps; none, if the file is absent or damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["maps"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
