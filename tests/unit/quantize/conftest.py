"""One trained network and its int8 form, shared by the tests of this room."""

import pytest
from tiny_student import TinyStudent, train_tiny_student
from torch import nn

from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.recipe import PtqRecipe


@pytest.fixture(scope="session")
def student() -> TinyStudent:
    return train_tiny_student()


@pytest.fixture(scope="session")
def student_int8(student: TinyStudent) -> nn.Module:
    return post_training_quantize(student.network, student.inputs(student.frames), PtqRecipe())
