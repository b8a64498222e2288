"""How a network is compared with what is exported of it, before a file is used or written."""

import numpy as np
import pytest

from kdas_edge.data.dataset import load_training_data
from kdas_edge.export.agreement import difference, openvino_agreement
from kdas_edge.models.zoo import build
from kdas_edge.quantize.pipeline import export_warnings
from kdas_edge.recipe import DataRecipe, ModelRecipe


def test_a_network_agrees_with_its_openvino_model():
    network = build(ModelRecipe(backbone="mobilenetv2_100", width=16), 64).eval()
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    found = openvino_agreement(network, images)
    assert found.frames == 2 and found.probability < 1e-4 and found.disagreement < 0.005


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_differ_in_every_pixel(value):
    fine, broken = np.zeros((2, 2), np.float32), np.full((2, 2), value, np.float32)
    for found, expected in (([broken, fine], [fine, fine]), ([broken, fine], [broken, fine])):
        result = difference(found, expected, 0.5)
        assert result.probability == np.inf and result.worst == 1 and result.disagreement == 0.5


def test_the_gate_warns_of_a_network_that_the_export_will_refuse(scenes):
    data = load_training_data(DataRecipe(root=str(scenes), size=64, validation=0.25), 64)
    seen = []

    def disagreement(share):
        def measure(network, images):
            seen.append(images)
            return share

        return measure

    images = data.validation.images
    assert export_warnings("ptq", None, images, disagreement(0.005)) == []
    [line] = export_warnings("ptq", None, images, disagreement(0.0123))
    assert "ptq" in line and "1.23%" in line and "export will refuse" in line
    assert seen[0].dtype == np.uint8 and seen[0].shape == (len(images), 64, 64, 3)
