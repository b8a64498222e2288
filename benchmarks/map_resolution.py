"""What a map can say at best: Dice of the masks themselves at a fraction of the image.

A network decides on a map of S/8 × S/8 pixels (Polyp-PVT) or S/4 × S/4 (`model.stride: 4`), which
is enlarged to the frame. Here every validation mask is its own prediction: averaged down to such a
map, as a logit, enlarged by the network's own interpolation, cut at 0.5. What it loses is what the
grid costs, however good a network is that says shares of a pixel. No test image is read.

    python benchmarks/map_resolution.py --data DATA --json benchmarks/results/map_resolution.json
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from kdas_edge.console import table
from kdas_edge.data.layout import read_pair, training_set
from kdas_edge.data.splits import validation_split
from kdas_edge.environment import describe
from kdas_edge.files import check_output_file, write_json
from kdas_edge.metrics.bootstrap import bootstrap_mean
from kdas_edge.metrics.overlap import dice
from kdas_edge.metrics.sizes import members
from kdas_edge.process import one_line_errors
from kdas_edge.table import number

SIZES = (192, 256, 352)
# 1: the image's own size, as a UNet's
STRIDES = (8, 4, 1)
# pixels that are wholly polyp or background are as certain as that; the logit of 1 is infinite
CERTAIN = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--validation", type=float, default=0.1, help="share, as in the recipes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.json is not None:
        check_output_file(args.json)

    source = training_set(args.data)
    names = set(validation_split(source, args.validation).validation)
    masks = [read_pair(pair)[1] for pair in source.pairs if pair.name in names]
    everything = np.ones(len(masks), dtype=np.bool_)
    small = members(np.array([mask.mean() for mask in masks])).get("small", ~everything)
    groups = {"all": everything, "small": small} if small.any() else {"all": everything}
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        for stride in STRIDES:
            dice = np.array([best_dice(mask, size, stride) for mask in masks])
            found = {name: asdict(bootstrap_mean(dice[of])) for name, of in groups.items()}
            rows.append({"size": size, "stride": stride, "dice": found})

    cells = [
        [row["size"], row["stride"], *(number(row["dice"][g]["mean"], 4) for g in groups)]
        for row in rows
    ]
    table("Dice of the masks themselves", ["size", "stride", *groups], cells)
    if args.json is not None:
        write_json(
            args.json,
            {
                "schema": "kdas-edge/map-resolution/1",
                "images": len(masks),
                "small_images": int(small.sum()),
                "rows": rows,
                "environment": describe(),
            },
        )


def best_dice(mask: NDArray[np.bool_], size: int, stride: int) -> float:
    """Dice of a mask (H, W) with itself at `size`/`stride` pixels a side."""
    whole = torch.from_numpy(mask)[None, None].float()
    share = F.interpolate(whole, (size // stride,) * 2, mode="area")
    logits = torch.logit(share.clamp(CERTAIN, 1 - CERTAIN))
    logits = F.interpolate(logits, scale_factor=stride, mode="bilinear")
    found = F.interpolate(logits, mask.shape, mode="bilinear")[0, 0] > 0
    return dice(found.numpy(), mask)


if __name__ == "__main__":
    with one_line_errors():
        main()
