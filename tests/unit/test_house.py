"""The house: arrows go one way, and the device wing knows no torch."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "kdas_edge"
WORKSTATION = ("models", "distill", "quantize", "export")
DEVICE = ("runtime", "bench", "evidence", "dicom")
GROUND = (
    "environment",
    "bundle",
    "metrics",
    "data.layout",
    "data.corruptions",
    "recipe",
    "files",
    "image_files",
    "errors",
    "console",
    "table",
    "overlay",
    "latency",
)
# the reference backend is torch itself; it is imported for a torch target only
TORCH_BACKEND = PACKAGE / "runtime" / "backends" / "torch.py"
TRAINING_PACKAGES = {"torch", "torchvision", "timm", "nncf", "lightning_fabric", "torchao"}


def imports(path: Path, lazy: bool) -> set[str]:
    """Modules that a file imports; with `lazy` also inside its functions."""
    tree = ast.parse(path.read_text())
    guarded = [
        node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node)
    ]
    skipped = {child for block in guarded for child in ast.walk(block)}
    nodes = ast.walk(tree) if lazy else tree.body
    found = set()
    for node in nodes:
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def files(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


@pytest.mark.parametrize("room", WORKSTATION)
def test_the_workstation_does_not_import_the_device(room: str) -> None:
    for path in files(room):
        for name in imports(path, lazy=True):
            assert not name.startswith(tuple(f"kdas_edge.{other}" for other in DEVICE)), path


@pytest.mark.parametrize("room", DEVICE)
def test_the_device_does_not_import_the_workstation_at_import_time(room: str) -> None:
    for path in files(room):
        for name in imports(path, lazy=False):
            assert not name.startswith(tuple(f"kdas_edge.{other}" for other in WORKSTATION)), path


@pytest.mark.parametrize("room", [*DEVICE, "bundle", "metrics", "cli"])
def test_the_device_wing_and_the_command_line_import_no_training_package(room: str) -> None:
    for path in files(room):
        if path == TORCH_BACKEND:
            continue
        heads = {name.split(".")[0] for name in imports(path, lazy=False)}
        assert not heads & TRAINING_PACKAGES, path


def test_the_ground_stands_on_nothing_above_it() -> None:
    upper = tuple(f"kdas_edge.{room}" for room in (*WORKSTATION, *DEVICE, "cli"))
    for room in GROUND:
        path = PACKAGE / room.replace(".", "/")
        for file in files(room) if path.is_dir() else [path.with_suffix(".py")]:
            for name in imports(file, lazy=True):
                assert not name.startswith(upper), file


def test_training_does_not_import_what_a_training_machine_lacks() -> None:
    lacking = {"nncf", "openvino", "torchao", "onnxruntime", "onnx"}
    for room in ("models", "distill", "data"):
        for path in files(room):
            assert not {n.split(".")[0] for n in imports(path, lazy=True)} & lacking, path
