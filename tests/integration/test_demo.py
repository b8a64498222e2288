"""The demo's own errors; `make demo --quick` in CI runs its road."""

from pathlib import Path

import pytest

from kdas_edge.demo import run_demo
from kdas_edge.errors import UserError


def test_a_folder_with_content_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_weights_without_the_encoder_are_named(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    with pytest.raises(UserError, match=r"tf_efficientnet_b0\.\*\.safetensors"):
        run_demo(tmp_path / "out", data=scenes, weights=tmp_path / "weights", quick=True)
