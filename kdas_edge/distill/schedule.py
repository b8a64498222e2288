"""What is known of a step before it happens: its seed, its images, its learning rate and size."""

import math

import numpy as np

from kdas_edge.recipe import ScheduleRecipe


def derive_seed(*numbers: int) -> int:
    """Mix whole numbers into one seed, so that neighbours share nothing (numpy's SeedSequence)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def learning_rate(schedule: ScheduleRecipe, step: int, total: int) -> float:
    """Learning rate at a step: linear warm-up, then constant or a cosine to zero."""
    warm = schedule.warmup * total
    if step < warm:
        return schedule.learning_rate * (step + 1) / warm
    if schedule.decay == "constant":
        return schedule.learning_rate
    done = (step - warm) / max(1.0, total - warm)
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def side(size: int, scale: float) -> int:
    """The training size at a scale: the nearest multiple of 32, at least 32."""
    return max(32, round(size * scale / 32) * 32)
