"""What a bundle says of where its network came from."""

import pytest

from kdas_edge.export.sources import _portable


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/data/pranet", "pranet"),
        ("../shared/pranet", "pranet"),
        ("runs/teacher", "runs/teacher"),
        ("mobilenetv2_100", "mobilenetv2_100"),
        (0.5, 0.5),
        (None, None),
    ],
)
def test_the_way_to_a_folder_elsewhere_is_left_out(before: object, after: object) -> None:
    assert _portable({"data": {"root": before}, "more": [before]}) == {
        "data": {"root": after},
        "more": [after],
    }
