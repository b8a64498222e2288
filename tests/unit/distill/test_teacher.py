"""A cached teacher: its maps lie on the augmented images, and teach what the teacher would."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_engine import tiny
from torch import Tensor

from kdas_edge.data import augment
from kdas_edge.data.resident import ResidentSet
from kdas_edge.distill import engine
from kdas_edge.distill.teacher import Teacher, as_outputs
from kdas_edge.distill.training import run_training
from kdas_edge.errors import UserError
from kdas_edge.models.architecture import Architecture, SegmentationNetwork
from kdas_edge.recipe import AugmentRecipe

SIDE = 32
PLAIN = Architecture("none", size=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class Reddish(SegmentationNetwork):
    """Marks a pixel by its red alone: what it says moves with the image."""

    architecture = PLAIN

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 1.5 * x[:, :1], 0.5 * x[:, :1]


def images(count: int) -> ResidentSet:
    # smooth, so that interpolating the image or the answer comes to the same
    wave = torch.linspace(0, 3, SIDE)
    planes = [
        torch.sin(wave[:, None] * (i + 1) + c) * torch.cos(wave * (c + 1))
        for i in range(count)
        for c in range(3)
    ]
    levels = (127.5 + 60 * torch.stack(planes)).round().to(torch.uint8)
    return ResidentSet(
        levels.view(count, 3, SIDE, SIDE),
        torch.zeros(count, 1, SIDE, SIDE, dtype=torch.uint8),
        torch.ones(count, dtype=torch.bool),
        tuple(map(str, range(count))),
    )


def test_the_map_moves_along_with_the_image() -> None:
    data = Teacher(Reddish(), SIDE).cache(images(8))
    assert data.teacher is not None and data.teacher.shape == (8, 1, SIDE, SIDE)
    geometry = AugmentRecipe(flip=True, rotate=90, scale=(0.8, 1.2), shift=0.1)
    drawn = augment.draw(geometry, 8, torch.Generator().manual_seed(0))
    moved, _ = augment.apply(drawn, data.images, data.masks)
    inside = augment.warp(drawn, torch.ones(8, 1, SIDE, SIDE)) > 0.999
    maps = augment.warp(drawn, data.teacher.float() / 255)
    # asked about the moved image; the colours were not changed
    asked = torch.sigmoid(sum(Reddish()((moved - 0.5) / 0.25)))
    assert inside.float().mean() > 0.5
    assert float((maps - asked)[inside].abs().max()) < 0.02
    assert float(maps.std()) > 0.1


def test_a_teacher_is_asked_again_only_about_something_new(tmp_path: Path) -> None:
    asked = []

    class Counting(Reddish):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("gain", torch.tensor(1.0))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            asked.append(len(x))
            return super().forward(self.gain * x)

    def ask(data: ResidentSet, gain: float = 1.0, size: int = SIDE, tta: int = 1) -> Tensor:
        asked.clear()
        teacher = Counting()
        teacher.gain.fill_(gain)
        maps = Teacher(teacher, size, tta).cache(data, tmp_path / "kept").teacher
        assert maps is not None
        return maps

    first = ask(images(4))
    assert asked and len(list((tmp_path / "kept").iterdir())) == 1
    assert torch.equal(ask(images(4)), first) and not asked
    for other in (
        lambda: ask(images(3)),
        lambda: ask(images(4), gain=0.5),
        lambda: ask(images(4), size=SIDE // 2),
        lambda: ask(images(4), tta=2),
    ):
        other()
        assert asked
    for file in (tmp_path / "kept").iterdir():
        file.write_bytes(file.read_bytes()[:-30])
    assert torch.equal(ask(images(4)), first) and asked


def test_outputs_of_a_map_give_its_probability_and_are_finite() -> None:
    probability = torch.tensor([0.0, 1 / 255, 0.25, 0.5, 1.0], dtype=torch.float64).view(1, 1, 1, 5)
    z1, z2 = as_outputs(probability)
    found = torch.sigmoid(z1 + z2)
    assert torch.isfinite(z1).all()
    assert torch.allclose(found[..., 1:4], probability[..., 1:4], atol=1e-12)
    assert found[..., 0].item() == pytest.approx(1 / 510)
    assert found[..., 4].item() == pytest.approx(1 - 1 / 510)


def test_without_augmentation_once_teaches_what_each_step_teaches(
    scenes: Path, tmp_path: Path
) -> None:
    run_training(tiny(scenes, name="teacher", schedule__epochs=1), tmp_path)
    still = {
        f"augment__{key}": value
        for key, value in {"flip": False, "rotate": 0, "scale": [1, 1], "hue": 0}.items()
    } | {"augment__blur": 0, "augment__noise": 0}
    terms = {}
    for once in (False, True):
        recipe = tiny(
            scenes,
            name=f"once_{json.dumps(once)}",
            teacher=str(tmp_path / "teacher"),
            cache_teacher=once,
            loss__variant="soft_labels",
            schedule__epochs=1,
            schedule__scales=[1.0],
            schedule__learning_rate=1e-30,
            **still,
        )
        terms[once] = run_training(recipe, tmp_path)["history"][0]
    # 8 bits of the probability, and pixels that a still grid does not move
    assert terms[True]["soft_labels"] == pytest.approx(terms[False]["soft_labels"], abs=2e-3)
    assert terms[True]["segmentation"] == pytest.approx(terms[False]["segmentation"], abs=1e-6)


def test_a_stopped_training_with_maps_ends_with_the_same_weights(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(tiny(scenes, name="teacher", schedule__epochs=1), tmp_path)
    changes = {
        "teacher": str(tmp_path / "teacher"),
        "cache_teacher": True,
        "teacher_tta": 2,
        "loss__variant": "soft_labels",
    }
    whole = run_training(tiny(scenes, name="whole", **changes), tmp_path)
    step = engine.Trainer.step

    def stopping(self, data, order, number, total, **options):  # type: ignore[no-untyped-def]
        if number == total // 2:
            raise KeyboardInterrupt
        return step(self, data, order, number, total, **options)

    recipe = tiny(
        scenes, name="parts", engine__checkpoint_minutes=1e-4, engine__log_interval=1, **changes
    )
    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_training(recipe, tmp_path)
    run_training(recipe, tmp_path, resume=True)
    assert whole["best_epoch"]
    best = "checkpoints/best.safetensors"
    one, two = (load_file(tmp_path / name / best) for name in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("variant", ["kdas", "kl"])
def test_terms_that_need_logits_are_refused(scenes: Path, variant: str) -> None:
    with pytest.raises(UserError, match="needs the teacher's logits"):
        tiny(scenes, teacher="runs/teacher", cache_teacher=True, loss__variant=variant)


def test_once_without_a_teacher_is_refused(scenes: Path) -> None:
    with pytest.raises(UserError, match="cache_teacher"):
        tiny(scenes, cache_teacher=True)
