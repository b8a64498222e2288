"""Tests that send themselves a signal: a worker of a parallel run does not always outlive it."""

import os
import subprocess
import sys

import pytest


def passed_alone(request: pytest.FixtureRequest) -> bool:
    """In a worker of a parallel run, run the test in a process of its own; True if that was done.

    Raises:
        AssertionError: it failed there.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return False
    alone = {key: value for key, value in os.environ.items() if "XDIST" not in key}
    name = f"{request.node.path}::{request.node.name}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", name]
    done = subprocess.run(command, env=alone, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
    return True
