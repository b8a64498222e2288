"""Import of NNCF without banners, and the check of the compiler that it needs."""

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from kdas_edge.console import info
from kdas_edge.errors import UserError

# A busy machine with two cores needs more than NNCF's 60 seconds to compile the quantisers.
_COMPILE_SECONDS = "600"
_LOGGERS = ("torch.utils.cpp_extension", "torch.onnx")
# a search quantises many times; what is missing is said once
_SAID: set[str] = set()


def import_nncf() -> ModuleType:
    """Import NNCF with its messages reduced to errors.

    Raises:
        UserError: NNCF is not installed.
    """
    os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", _COMPILE_SECONDS)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with quiet():
            import nncf
            import nncf.torch
    except ImportError as error:
        raise UserError(f"quantisation needs NNCF ({error}); install kdas-edge[train]") from None
    nncf.set_log_level(logging.ERROR)
    return nncf


def check_compiler(cuda: bool) -> None:
    """Check for what NNCF compiles its quantisers with, before any long work.

    On a CPU NNCF falls back to slower torch operations; on a GPU it cannot.

    Args:
        cuda: the quantisers will run on a GPU.

    Raises:
        UserError: a GPU is used and the CUDA compiler is missing.
    """
    # a virtual environment that is not activated keeps its ninja off the search path
    programs = str(Path(sys.executable).parent)
    if programs not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), programs])
    compilers = {"g++": os.environ.get("CXX", "g++"), "ninja": "ninja"}
    if cuda:
        home = os.environ.get("CUDA_HOME")
        compilers["nvcc"] = str(Path(home) / "bin" / "nvcc") if home else "nvcc"
    missing = [name for name, program in compilers.items() if shutil.which(program) is None]
    if not missing:
        return
    what = (
        f"NNCF compiles its quantisers with {', '.join(compilers)}; missing: {', '.join(missing)}"
    )
    if cuda:
        raise UserError(f"{what}; install it, or hide the GPU with CUDA_VISIBLE_DEVICES=''")
    note = f"{what}; going on with the slower torch quantisers"
    if note not in _SAID:
        _SAID.add(note)
        info(note)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what NNCF prints on stdout (its progress bars) to stderr: stdout is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
