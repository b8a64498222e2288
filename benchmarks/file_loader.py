"""The usual data path of this field's training scripts, to measure ours against."""

from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from kdas_edge.data.layout import Pair


class Files(Dataset):
    """What a script of this field does: open, resize, flip and rotate, one image at a time."""

    def __init__(self, pairs: Sequence[Pair], size: int) -> None:
        self.pairs, self.size = pairs, size
        self.rotate = v2.RandomRotation(90)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        assert pair.mask is not None
        image = Image.open(pair.image).convert("RGB").resize((self.size, self.size), 2)
        mask = Image.open(pair.mask).convert("L").resize((self.size, self.size), 2)
        both = torch.cat([v2.functional.pil_to_tensor(image), v2.functional.pil_to_tensor(mask)])
        if torch.rand(()) < 0.5:
            both = both.flip(-1)
        if torch.rand(()) < 0.5:
            both = both.flip(-2)
        both = self.rotate(both)
        return both[:3], (both[3:] > 127).to(torch.uint8)


def forever(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without an end."""
    while True:
        yield from loader
