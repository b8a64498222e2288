"""The house: arrows go one way, without a circle, and the device wing knows no torch."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "kdas_edge"
WORKSTATION = ("models", "distill", "quantize", "export")
# what the workstation may import of the device: to run what it wrote, and to read what ran
SHARED = ("runtime", "inspect")
DEVICE = (*SHARED, "video", "bench", "report", "evidence", "doctor", "dicom")
GROUND = (
    "environment",
    "bundle",
    "metrics",
    "data.layout",
    "data.corruptions",
    "recipe",
    "files",
    "image_files",
    "video_files",
    "errors",
    "console",
    "table",
    "overlay",
    "latency",
)
# the reference backend is torch itself; it is imported for a torch target only
TORCH_BACKEND = PACKAGE / "runtime" / "backends" / "torch.py"
TRAINING_PACKAGES = {"torch", "torchvision", "timm", "nncf", "lightning_fabric", "torchao"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path, lazy: bool) -> set[str]:
    """Modules that a file imports; with `lazy` also inside its functions."""
    tree = ast.parse(path.read_text())
    guarded = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
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


def graph_of_files() -> dict[str, set[str]]:
    """Module → modules of the package that it imports, inside its functions too.

    `from package import name` is an edge to the module `package.name` where there is one, else to
    `package`; the `__init__` of a package that is merely passed through is none.
    """
    edges: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        found = imports(path, lazy=True) & MODULES.keys()
        passed = {one for one in found if any(other.startswith(f"{one}.") for other in found)}
        edges[name] = found - passed - {name}
    return edges


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def test_circles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert circles(edges) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_circle_between_files_not_even_by_imports_inside_functions() -> None:
    edges = graph_of_files()
    assert "kdas_edge.runtime.engine" in edges["kdas_edge.runtime.choice"]
    assert circles(edges) == []


def test_no_circle_between_folders() -> None:
    def room(module: str) -> str:
        return module.split(".")[1] if "." in module else module

    def arrows() -> Iterator[tuple[str, str]]:
        for module, others in graph_of_files().items():
            yield from ((room(module), room(other)) for other in others)

    edges: dict[str, set[str]] = {}
    for start, end in arrows():
        if start != end:
            edges.setdefault(start, set()).add(end)
    assert circles(edges) == []


@pytest.mark.parametrize("room", WORKSTATION)
def test_the_workstation_imports_nothing_of_the_device_but_runtime_and_inspect(room: str) -> None:
    closed = tuple(f"kdas_edge.{other}" for other in DEVICE if other not in SHARED)
    for path in files(room):
        for name in imports(path, lazy=True):
            assert not name.startswith(closed), path


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


def test_a_class_name_stands_for_one_thing() -> None:
    places: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(PACKAGE))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_a_table_is_made_of_cells_and_nothing_reads_formatted_text_back() -> None:
    """The rooms that say what a table shows know no terminal, no HTML and no Markdown."""
    for room in ("report", "bench"):
        for path in files(room):
            names = imports(path, lazy=True)
            assert not {"rich", "html"} & {name.split(".")[0] for name in names}, path
            assert "kdas_edge.console.table" not in names, path
