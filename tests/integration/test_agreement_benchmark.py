"""The benchmark of one int8 model on every path: what it compares, and that it compares it."""

from pathlib import Path

import numpy as np
import pytest
from tiny_student import SIZE, train_tiny_student

from kdas_edge.data.layout import Pair, find_sets, training_set
from kdas_edge.data.splits import validation_split, write_split
from kdas_edge.environment import describe
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.recipe import PtqRecipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def common():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import agreement_common

        yield agreement_common


def test_frames_are_spread_evenly_and_a_small_set_leaves_its_share(common):
    sets = {
        name: [Pair(str(index), Path(name), None) for index in range(length)]
        for name, length in (("large", 100), ("small", 3), ("middle", 50))
    }
    chosen = common.spread(sets, 43)
    counts = {name: sum(found == name for found, _ in chosen) for name in sets}
    assert counts == {"large": 20, "small": 3, "middle": 20}
    assert len({(name, pair.name) for name, pair in chosen}) == 43
    ends = [int(pair.name) for name, pair in chosen if name == "large"]
    assert ends[0] == 0 and ends[-1] == 99 and max(np.diff(ends)) <= 6
    assert len(common.spread(sets, 1000)) == 153


def test_a_path_is_believed_only_if_its_own_kernels_ran(common):
    _, required, forbidden = common.PATHS["openvino, AVX2"]
    ran = {"onednn_int8_primitives": {"jit_uni_int8:avx2": 3}, "int8_kernels": {"jit_avx2_I8": 3}}
    assert common.wanted_kernels_ran(ran, required, forbidden)
    ran["int8_kernels"]["brgconv_avx512_I8"] = 1
    assert not common.wanted_kernels_ran(ran, required, forbidden)
    nothing = {"onednn_int8_primitives": {}, "int8_kernels": {}}
    assert not common.wanted_kernels_ran(nothing, required, forbidden)


@pytest.mark.slow
def test_a_quantised_network_is_compared_with_torch_on_every_path(common, scenes, tmp_path):
    student = train_tiny_student(root=scenes)
    run = tmp_path / "run"
    run.mkdir()
    source = training_set(scenes)
    split = validation_split(source, 0.2, seed=0)
    write_split(run / "split.json", split, source)
    frames = common.read_frames(scenes, run, 8, student.architecture, tmp_path)
    assert {name.split("/")[0] for name in frames.names} == (
        find_sets(scenes).keys() - {"train"}
    ) | {"validation"}
    assert frames.load().shape == (len(frames.names), 3, SIZE, SIZE)

    quantized = post_training_quantize(
        student.network, student.inputs(student.frames[:8]), PtqRecipe(overflow_fix="enable")
    )
    found = common.measure(quantized, student.architecture, frames, 1, tmp_path)
    assert set(found["paths"]) == {*common.PATHS, "onnxruntime"}
    features = describe()["cpu_features"]
    for name, path in found["paths"].items():
        assert path["disagreement"]["mean"] < 0.02, name
        assert path["disagreement"]["mean"] <= path["disagreement"]["worst"]
        assert path["disagreement"]["worst_frame"] in frames.names
        if "AVX-512" not in name or features["avx512"]:
            assert path["verified"], (name, path)
    other = common.compare(
        np.zeros((len(frames.names), SIZE, SIZE), np.float32),
        np.ones((len(frames.names), SIZE, SIZE), np.float32),
        frames,
    )
    assert other["disagreement"]["mean"] == 1 and not other["meets_limits"]
