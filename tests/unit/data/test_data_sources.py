"""Several hospitals and polyp-free frames in one training, with stated shares of a batch."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_verb import run_verb

from kdas_edge.data.centres import centres_of
from kdas_edge.data.dataset import TrainingData, load_training_data
from kdas_edge.data.sampler import Origin, Sampler
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError
from kdas_edge.recipe import DataRecipe


def _write(folder: Path, names: dict[str, int], polyp: bool = True, masks: str = "masks") -> Path:
    for name, seed in names.items():
        image, mask = scene(seed, 96, polyp=polyp)
        for kind, pixels in (("images", image), (masks, mask)):
            if kind:
                (folder / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / kind / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hospitals")
    _write(root / "first" / "TrainDataset", {f"f{i}": i for i in range(12)})
    _write(root / "first" / "TrainDataset", {"f_empty": 400}, polyp=False)
    _write(root / "first" / "TestDataset" / "test", {f"t{i}": 50 + i for i in range(3)})
    _write(root / "second", {f"C{i % 2}_{i}": 100 + i for i in range(12)})
    _write(root / "healthy", {f"seq{i % 3}_{i}": 200 + i for i in range(9)}, False, masks="")
    return root


def _load(root: Path, **values: object) -> TrainingData:
    defaults = {
        "root": str(root / "first"),
        "size": 64,
        "validation": 0.25,
        "sources": [{"root": str(root / "second"), "centres": "(C[0-9])_"}],
        "negatives": [str(root / "healthy")],
    }
    return load_training_data(DataRecipe.model_validate({**defaults, **values}))


def test_every_source_trains_and_validates_and_frames_need_no_masks(hospitals: Path) -> None:
    data = _load(hospitals)
    for side in (data.train, data.validation):
        labels = Counter(name.partition("/")[0] if "/" in name else "first" for name in side.names)
        assert set(labels) == {"first", "second", "healthy"}
        assert side.labelled.all()
        for name, mask in zip(side.names, side.masks, strict=True):
            assert mask.any() == (not name.startswith("healthy/") and name != "f_empty")

    def sequences(side: tuple[str, ...]) -> set[str]:
        return {name.partition("_")[0] for name in side if name.startswith("healthy/")}

    assert not sequences(data.split.train) & sequences(data.split.validation)
    assert len(data.split.hashes) == 34
    (part,) = data.split.lineage.parts
    assert len(part.train) == len(data.train) and len(part.validation) == len(data.validation)


def test_one_source_alone_is_split_and_ordered_as_ever(hospitals: Path) -> None:
    data = _load(hospitals, sources=[], negatives=[])
    assert not any("/" in name for name in data.train.names)
    generator = torch.Generator().manual_seed(7)
    count = len(data.train)
    rounds = [torch.randperm(count, generator=generator) for _ in range(3)]
    assert torch.equal(data.sampler().order(25, 7), torch.cat(rounds)[:25])


def test_a_batch_holds_the_stated_shares(hospitals: Path) -> None:
    second = {"root": str(hospitals / "second"), "centres": "(C[0-9])_", "share": 0.25}
    data = _load(hospitals, polyp_free_share=0.5, sources=[second])
    order = data.sampler().order(64, 3)
    assert torch.equal(order, data.sampler().order(64, 3))
    assert not torch.equal(order, data.sampler().order(64, 4))
    for batch in order.split(16):
        names = [data.train.names[int(index)] for index in batch]
        kinds = Counter(
            "empty" if name == "f_empty" else name.partition("/")[0] if "/" in name else "first"
            for name in names
        )
        free = kinds["empty"] + kinds["healthy"]
        assert abs(free - 8) <= 1 and abs(kinds["second"] - 2) <= 1
        if "f_empty" in data.train.names:  # of both centres, by the roots of 1 and of 6
            assert 1 <= kinds["empty"] < kinds["healthy"]
    # within a stratum each image comes once before any comes again
    names = [data.train.names[int(index)] for index in order]
    seen = Counter(name for name in names if "/" not in name and name != "f_empty")
    assert max(seen.values()) - min(seen.values()) <= 1


def test_shares_without_such_frames_change_nothing_else(hospitals: Path) -> None:
    data = _load(hospitals, negatives=[])
    kept = torch.tensor([name != "f_empty" for name in data.train.names])
    train = data.train.where(kept)
    order = Sampler(train, Origin(polyp_free=0.5)).order(len(train), 0)
    assert sorted(order.tolist()) == list(range(len(train)))


def test_a_centre_is_left_out_of_training_and_kept_for_testing(hospitals: Path) -> None:
    data = _load(hospitals, leave_centre_out="C1")
    assert data.left_out is not None and len(data.left_out) == 6
    assert all(name.startswith("second/C1_") for name in data.left_out.names)
    assert not any(name.startswith("second/C1_") for name in data.split.hashes)
    with pytest.raises(UserError, match="no centre of this recipe; it has C0, C1, first, healthy"):
        _load(hospitals, leave_centre_out="C9")


def test_what_is_wrong_with_a_source_is_one_clear_line(hospitals: Path, tmp_path: Path) -> None:
    bearing = _write(tmp_path / "bearing", {"n_0": 1, "n_1": 2})
    with pytest.raises(UserError, match=r"n_0\.png marks a polyp"):
        _load(hospitals, negatives=[str(bearing)])
    with pytest.raises(UserError, match="12 of 12 images are of no centre"):
        _load(hospitals, sources=[{"root": str(hospitals / "second"), "centres": "(x)_"}])
    near = _write(tmp_path / "near", {f"n{i}": 300 + i for i in range(4)})
    image = np.roll(scene(51, 96, polyp=True)[0], 1, axis=1)
    Image.fromarray(image).save(near / "images" / "n0.png")
    with pytest.raises(UserError, match=r"near/n0 is a near duplicate of .*t1.png"):
        _load(hospitals, sources=[str(near)])


def test_a_source_in_another_layout_is_read_in_place(hospitals: Path, tmp_path: Path) -> None:
    _write(tmp_path / "odd", {f"n{i}": 300 + i for i in range(6)}, masks="Ground Truth")
    (tmp_path / "layout.yaml").write_text(
        "images: images/*.png\nmasks: 'Ground Truth/{stem}.png'\n"
    )
    odd = {"root": str(tmp_path / "odd"), "layout": str(tmp_path / "layout.yaml")}
    data = _load(hospitals, sources=[odd])
    assert sum(name.startswith("odd/") for name in data.split.hashes) == 6


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["Kvasir"], ["Kvasir"] * 3),
        (["(.)[0-9]"], ["a", "a", "b"]),
        (["A=a.", "B=b."], ["A", "A", "B"]),
        (["A=a1", "B=b."], "1 of 3 images are of no centre, a2"),
        (["A=.*", "B=b."], "b1 is of A and B"),
        (["A=.*", "B=c."], "no image is of B"),
        (["("], "correct the expression"),
        (["a."], None),
        (["a=x", "b"], "write NAME=PATTERN"),
    ],
)
def test_centres_are_told_by_names(rules: list[str], expected: list[str] | str | None) -> None:
    names = ["a1", "a2", "b1"]
    if isinstance(expected, list):
        assert centres_of(names, rules, "x") == expected
    elif expected is None:  # no sign of a pattern: a name
        assert centres_of(names, rules, "x") == rules * 3
    else:
        with pytest.raises(UserError, match=expected):
            centres_of(names, rules, "x")


def test_a_training_tests_on_the_centre_that_it_left_out(
    hospitals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = f"data.sources=[{{root: {hospitals / 'second'}, centres: '(C[0-9])_'}}]"
    done = run_verb(
        capsys, "train", "--data", hospitals / "first", "--out", tmp_path, "--name", "run",
        "--leave-centre-out", "healthy", sources, f"data.negatives=[{hospitals / 'healthy'}]",
        "data.size=64", "data.validation=0.2", "data.polyp_free_share=0.25", "augment.windows=0.5",
        "augment.screen=0.5", "model.backbone=mobilenetv2_100", "model.width=16",
        "schedule.epochs=1", "schedule.batch_size=4", "engine.precision=fp32", "engine.threads=1",
        "data.centres=first",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "run" / "run.json").read_text())["left_out"]
    assert (found["centre"], found["polyp_frames"], found["polyp_free_frames"]) == ("healthy", 0, 9)
    assert found["dice"] is None and 0 <= found["marked"] <= 1
    assert "9 polyp-free frames marked" in (tmp_path / "run" / "log.txt").read_text()
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert set(split["sources"]) == {"data.root", "second"}
    assert sum(part["train"] for part in split["sources"].values()) == len(split["train"])
    assert not any(name.startswith("healthy/") for name in split["hashes"])
