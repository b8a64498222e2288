import pytest

from kdas_edge.errors import UserError
from kdas_edge.runtime.targets import parse_target, parse_targets


def test_a_target_is_read_and_written_back_unchanged():
    for text in ("openvino:CPU", "openvino:GPU.1:precision=f16", "onnxruntime:CPU:threads=1"):
        assert str(parse_target(text)) == text
    assert parse_target("openvino:CPU:threads=4").threads == 4
    assert parse_target("torch:cpu").threads is None
    assert parse_target("torch:cpu").batch == 1
    assert parse_target("torch:cpu").tta == 1
    assert parse_target("torch:cuda:tta=4").tta == 4
    assert parse_target("openvino:CPU:hint=throughput:streams=2:batch=4").batch == 4


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("openvno:CPU", "did you mean 'openvino'"),
        ("openvino:CPUU", "did you mean 'CPU'"),
        ("onnxruntime:TensorRt", "did you mean 'TensorRT'"),
        ("openvino:CPU:thread=1", "did you mean 'threads'"),
        ("openvino:CPU:threads=0", "a whole number above 0"),
        ("openvino:CPU:threads=²", "a whole number above 0"),
        ("openvino:CPU:threads", "a whole number above 0"),
        ("openvino:CPU:precision=fp16", "f32, bf16 or f16"),
        ("openvino", "known: CPU, GPU"),
        ("", "known: openvino"),
        ("openvino:CPU.x", "known: CPU, GPU"),
        ("openvino:CPU:threads=1:threads=2", "twice"),
        ("openvino:CPU:stream=1", "did you mean 'streams'"),
        ("openvino:CPU:streams=0", "a whole number above 0"),
        ("openvino:CPU:hint=speed", "latency or throughput"),
        ("openvino:CPU:batch=two", "a whole number above 0"),
        ("torch:cpu:tta=5", "1 to 4"),
        ("openvino:CPU:tta=4", "torch alone"),
        ("torch:cpu:mirrors=4", "write tta=4"),
    ],
)
def test_a_wrong_target_is_one_line_that_names_the_word_and_what_is_known(text, word):
    with pytest.raises(UserError) as caught:
        parse_target(text)
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_of_targets_is_separated_by_commas_and_cannot_be_empty():
    assert [t.runtime for t in parse_targets("openvino:CPU, onnxruntime:CPU")] == [
        "openvino",
        "onnxruntime",
    ]
    with pytest.raises(UserError, match="no target given"):
        parse_targets(" , ")
