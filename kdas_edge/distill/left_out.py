"""Testing a network on the centre that its training left out (`data.leave_centre_out`)."""

from typing import Any

import numpy as np
import torch

from kdas_edge.data.resident import ResidentSet
from kdas_edge.distill.validation import validate
from kdas_edge.models.checkpoints import load_network
from kdas_edge.run import Run


def evaluate_left_out(run: Run, data: ResidentSet, size: int, centre: str) -> dict[str, Any]:
    """Score a run's best network on a centre, frames with and without polyp apart.

    The result is logged and kept in `run.json` under `left_out`.

    Args:
        run: a finished training.
        data: the images of the centre.
        size: the network's input size.
        centre: its name.

    Returns:
        `centre`, `polyp_frames`, `dice` (mean of these, 0…1, None without any), `found` (share of
        them with a marked pixel of the polyp), `polyp_free_frames` and `marked` (share of these
        with any marked pixel).
    """
    network = load_network(run.path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dice, masks = validate(network.to(device), data.images, data.masks, size)
    polyp = (data.masks > 0).flatten(1).any(1).cpu().numpy()
    marked = np.asarray(masks.any(axis=(1, 2)))
    found: dict[str, Any] = {
        "centre": centre,
        "polyp_frames": int(polyp.sum()),
        "dice": float(dice[polyp].mean()) if polyp.any() else None,
        # Dice is above 0 where at least one pixel of the polyp is marked
        "found": float((dice[polyp] > 0).mean()) if polyp.any() else None,
        "polyp_free_frames": int((~polyp).sum()),
        "marked": float(marked[~polyp].mean()) if (~polyp).any() else None,
    }
    run.update(left_out=found)
    parts = []
    if polyp.any():
        parts.append(
            f"Dice {found['dice']:.4f}, polyps found {found['found']:.1%} of {polyp.sum()} frames"
        )
    if (~polyp).any():
        parts.append(f"{found['marked']:.1%} of {(~polyp).sum()} polyp-free frames marked")
    run.log(f"centre {centre}, not trained on: {'; '.join(parts)}")
    return found
