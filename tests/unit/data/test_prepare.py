"""The compact copy holds what training would have seen, and says what it cost."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdas_edge.data.layout import find_sets, read_pair, resize_image, resize_mask
from kdas_edge.data.prepare import prepare
from kdas_edge.data.splits import hash_pair
from kdas_edge.errors import UserError


def test_the_copy_has_the_layout_the_size_and_the_pixels_of_training(
    scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    prepared = prepare(scenes, out, size=64, quality=95)
    originals, copies = find_sets(scenes), find_sets(out)
    assert {n: len(s.pairs) for n, s in copies.items()} == {"train": 24, "Synthetic": 6}
    for original, copy in zip(originals["train"].pairs, copies["train"].pairs, strict=True):
        assert original.name == copy.name
        image, mask = read_pair(original)
        small, small_mask = read_pair(copy)
        assert small.shape == (64, 64, 3)
        assert (small_mask == resize_mask(mask, 64, 64)).all()
        difference = small.astype(float) - resize_image(image, 64, 64)
        assert 10 * np.log10(255**2 / (difference**2).mean()) >= prepared["train"].psnr_min - 0.01
        assert Image.open(copy.mask or "").mode == "1"
    assert prepared["train"].psnr_mean > 35
    print(f"PSNR at quality 95: {prepared['train'].psnr_mean} dB")


def test_the_record_holds_parameters_and_the_hashes_of_the_originals(
    scenes: Path, tmp_path: Path
) -> None:
    prepare(scenes, tmp_path / "copy", size=32, quality=80)
    record = json.loads((tmp_path / "copy" / "prepared.json").read_text())
    assert (record["size"], record["quality"]) == (32, 80)
    pair = find_sets(scenes)["train"].pairs[3]
    assert record["sources"]["train"][pair.name] == hash_pair(pair)
    assert record["sets"]["Synthetic"]["images"] == 6
    # a record travels with the copy: it must not tell where the originals lie
    assert str(scenes.parent) not in json.dumps(record)


def test_a_plain_folder_stays_plain_and_frames_without_masks_are_accepted(
    scenes: Path, tmp_path: Path
) -> None:
    prepare(scenes / "TrainDataset", tmp_path / "plain", size=32)
    assert len(list((tmp_path / "plain" / "masks").iterdir())) == 24
    frames = tmp_path / "frames" / "images"
    frames.mkdir(parents=True)
    for path in sorted((scenes / "TrainDataset" / "images").iterdir())[:3]:
        (frames / path.name).write_bytes(path.read_bytes())
    prepared = prepare(tmp_path / "frames", tmp_path / "small", size=32)
    assert prepared["frames"].images == 3
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == ["images", "prepared.json"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("images/00002.jpg", b"", "0 bytes"),
        ("masks/00002.png", b"garbage", "cannot be read"),
        ("masks/00002.png", None, "has no mask"),
    ],
)
def test_a_faulty_pair_stops_it_and_nothing_is_left_behind(
    scenes: Path, tmp_path: Path, file: str, content: bytes | None, words: str
) -> None:
    root = tmp_path / "data"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
        for path in sorted((scenes / "TrainDataset" / kind).iterdir())[:4]:
            (root / kind / path.name).write_bytes(path.read_bytes())
    if content is None:
        (root / file).unlink()
    else:
        (root / file).write_bytes(content)
    with pytest.raises(UserError, match=words):
        prepare(root, tmp_path / "copy", size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_existing_folder_is_replaced_only_when_asked_and_never_the_originals(
    scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        prepare(scenes, out, size=32)
    assert (out / "precious.txt").read_text() == "mine"
    prepare(scenes, out, size=32, overwrite=True)
    assert not (out / "precious.txt").exists()
    for place in (scenes, scenes.parent):
        with pytest.raises(UserError, match="holds the originals"):
            prepare(scenes, place, size=32, overwrite=True)
    assert len(find_sets(scenes)["train"].pairs) == 24


def test_sizes_and_qualities_out_of_range_are_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="size 16"):
        prepare(scenes, tmp_path / "copy", size=16)
    with pytest.raises(UserError, match="quality 0"):
        prepare(scenes, tmp_path / "copy", quality=0)
    assert list(tmp_path.iterdir()) == []
