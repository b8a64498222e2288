"""The shared student of the tests, under the names that this room uses."""

import pytest
from tiny_student import TinyStudent
from torch import nn


@pytest.fixture(scope="session")
def student(tiny: TinyStudent) -> TinyStudent:
    return tiny


@pytest.fixture(scope="session")
def student_int8(tiny_int8: nn.Module) -> nn.Module:
    return tiny_int8
