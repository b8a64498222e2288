"""Run directories: everything that made a model and everything that was measured on the way.

runs/<name>/
  recipe.yaml environment.json split.json run.json
  log.txt metrics.csv metrics.jsonl tensorboard/
  checkpoints/last.safetensors  what resumes      checkpoints/best.safetensors  what counts
  overlays/
"""

import contextlib
import csv
import datetime
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdas_edge import environment
from kdas_edge.console import info
from kdas_edge.errors import UserError
from kdas_edge.files import (
    check_inputs_kept,
    check_output_directory,
    lock,
    read_json,
    read_json_lines,
    staged_directory,
    write_json,
    write_text_atomic,
)
from kdas_edge.recipe import QuantizeRecipe, Recipe, TrainRecipe, dump_recipe, load_recipe


class Run:
    """One run directory.

    Attributes:
        path: the directory.
        writes: false in all but the first process of a distributed run; those write nothing.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self._tensorboard: Any = None

    @classmethod
    def create(
        cls,
        root: Path,
        recipe: Recipe,
        resume: bool = False,
        overwrite: bool = False,
        kind: str = "train",
    ) -> "Run":
        """Make `root/<recipe.name>`, or open it to go on.

        Args:
            root: folder of all runs.
            recipe: the resolved recipe; it is written into the run.
            resume: go on with a run that stopped. Its recipe must be the same.
            overwrite: throw an existing run away.
            kind: the verb that makes the run.

        Raises:
            UserError: the run exists (or does not, for resume), has another recipe, or the folder
                cannot be written.
        """
        path = check_run_directory(root, recipe, resume, overwrite)
        run = cls(path, writes=_writes())
        if not run.writes:
            return run
        if resume:
            before = _read(path, type(recipe)).model_dump(mode="json")
            now = recipe.model_dump(mode="json")
            different = _differences(before, now)
            if different:
                raise UserError(
                    f"{path} was made with another recipe ({different[0]}); "
                    "resume with the same recipe, or choose another name"
                )
            if not (path / "run.json").exists():  # killed while the first release made the folder
                run._begin(path, kind)
            run.log(f"resumed {_now()}")
            return run
        # renamed when it is complete: a run that was killed while it was made is no run
        with staged_directory(path, overwrite) as staging:
            for folder in ("checkpoints", "overlays"):
                (staging / folder).mkdir()
            write_text_atomic(staging / "recipe.yaml", dump_recipe(recipe))
            run._begin(staging, kind)
        run.log(f"created {_now()} by {' '.join(sys.argv)}")
        return run

    @staticmethod
    def _begin(path: Path, kind: str) -> None:
        write_json(path / "environment.json", environment.describe())
        write_json(path / "run.json", {"kind": kind, "status": "running", "started": _now()})

    @property
    def last_checkpoint(self) -> Path:
        """The full state of the training: network, optimiser, step."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best_checkpoint(self) -> Path:
        """The network of the best epoch on the validation split."""
        return self.path / "checkpoints" / "best.safetensors"

    def state(self) -> dict[str, Any]:
        """Return `run.json`: kind, status, times and the result."""
        state = read_json(self.path / "run.json")
        if not isinstance(state, dict):
            raise UserError(f"{self.path / 'run.json'} is no JSON object; make the run again")
        return state

    def update(self, **values: Any) -> None:
        """Add keys to `run.json`."""
        if self.writes:
            write_json(self.path / "run.json", {**self.state(), **values})

    def log(self, message: str) -> None:
        """Print a line and keep it in `log.txt`."""
        if not self.writes:
            return
        info(message)
        with (self.path / "log.txt").open("a", encoding="utf-8", errors="replace") as file:
            file.write(message + "\n")

    def record(self, row: dict[str, Any]) -> None:
        """Append an epoch's numbers to metrics.jsonl, metrics.csv and TensorBoard.

        Args:
            row: holds `epoch` and `step`; the rest are numbers.
        """
        if not self.writes:
            return
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._write_csv(self.history())
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(
                str(self.path / "tensorboard"), purge_step=int(row["step"])
            )
        for key, value in row.items():
            if key not in ("epoch", "step"):
                self._tensorboard.add_scalar(key, value, row["step"])
        self._tensorboard.flush()

    def history(self) -> list[dict[str, Any]]:
        """Return the rows recorded so far, one per epoch; a line that a kill cut is left out."""
        path = self.path / "metrics.jsonl"
        rows = read_json_lines(path) if path.exists() else []
        return [row for row in rows if isinstance(row, dict) and {"epoch", "step"} <= set(row)]

    def rewind(self, step: int) -> None:
        """Forget rows after `step`: the run resumes there and will record them again."""
        if self.writes:
            rows = [row for row in self.history() if row["step"] <= step]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            write_text_atomic(self.path / "metrics.jsonl", text)
            self._write_csv(rows)

    def _write_csv(self, rows: list[dict[str, Any]]) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (self.path / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


def check_run_directory(
    root: Path, recipe: Recipe, resume: bool = False, overwrite: bool = False
) -> Path:
    """Say where a run goes, or refuse, before any long work begins.

    Args:
        root: folder of all runs.
        recipe: its `name` is the folder's.
        resume: go on with a run that is there.
        overwrite: replace a run that is there.

    Returns:
        `root/<recipe.name>`.

    Raises:
        UserError: the name is no folder's, there is nothing to resume, or something to lose.
    """
    path = _folder(root, recipe.name)
    if not _writes():
        return path
    begun = (path / "recipe.yaml").is_file()
    if resume:
        if not begun:
            raise UserError(f"{path} is no run that could be resumed; leave --resume out")
    elif begun and not overwrite and _status(path) in (None, "running", "interrupted"):
        raise UserError(
            f"{path} was begun and not finished; add --resume to go on with it, or --overwrite to "
            "start again"
        )
    else:
        check_output_directory(path, overwrite)
    check_inputs_kept(path, _inputs(recipe))
    return path


def check_recipe_kept(root: Path, recipe: Recipe, file: Path | None, resume: bool = False) -> None:
    """Refuse a run that would replace the file that its recipe was read from.

    Args:
        root: folder of all runs.
        recipe: the resolved recipe; its `name` is the run's folder.
        file: that it was read from; None for a recipe of options alone.
        resume: go on with the run, which replaces nothing.

    Raises:
        UserError: the file is in the run's folder.
    """
    if file is not None and not resume:
        check_inputs_kept(_folder(root, recipe.name), [file])


@contextlib.contextmanager
def only_writer(
    root: Path, recipe: Recipe, resume: bool = False, overwrite: bool = False
) -> Iterator[None]:
    """Be the only job that writes a run; the processes of one job count as one.

    Raises:
        UserError: another process is at work on it, or see `check_run_directory`.
    """
    path = _folder(root, recipe.name)
    with lock(path) if _writes() else contextlib.nullcontext():
        check_run_directory(root, recipe, resume, overwrite)
        yield


def open_run(path: Path) -> tuple[Run, Recipe]:
    """Open a finished or stopped run and its recipe.

    Raises:
        UserError: not a run directory.
    """
    if not (path / "run.json").is_file() or not (path / "recipe.yaml").is_file():
        raise UserError(f"{path} is not a run directory; name one that train or distill made")
    run = Run(path)
    quantized = run.state().get("kind") == "quantize"
    return run, _read(path, QuantizeRecipe if quantized else TrainRecipe)


def _read(path: Path, kind: type[Recipe]) -> Recipe:
    """Read the recipe of a run; keys that are newer than the run stand at their defaults."""
    if kind is QuantizeRecipe:
        return load_recipe(QuantizeRecipe, path / "recipe.yaml", [], recorded=True)
    return load_recipe(TrainRecipe, path / "recipe.yaml", [], recorded=True)


def _differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    """List the keys that differ, except `engine`, which changes how and not what is learnt."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in dict.fromkeys([*before, *now]):
            if not prefix and key == "engine":
                continue
            found += _differences(before.get(key), now.get(key), f"{prefix}{key}.")
        return found
    return [] if before == now else [f"{prefix[:-1]}: {before!r}, now {now!r}"]


def _folder(root: Path, name: str) -> Path:
    if Path(name).name != name or name in ("", ".", "..") or "\0" in name or len(name) > 100:
        raise UserError(
            f"name {name[:100]!r} is not a folder name; use up to 100 letters and digits"
        )
    return root / name


def _inputs(recipe: Recipe) -> list[Path]:
    """What a run reads and must not replace."""
    data = recipe.data
    named: list[object] = [data.root, data.unlabelled, recipe.teacher]
    named += [source.root for source in (*data.sources, *data.negatives)]
    if isinstance(recipe, QuantizeRecipe):
        named += [recipe.student, recipe.calibration.source]
    else:
        named += [recipe.model.init_from, recipe.model.init_decoder_from, recipe.model.pretrained]
    return [Path(one) for one in named if isinstance(one, str)]


def _status(path: Path) -> str | None:
    try:
        status = json.loads((path / "run.json").read_bytes()).get("status")
    except (OSError, ValueError, AttributeError):
        return None
    return status if isinstance(status, str) else None


def _writes() -> bool:
    """Whether this is the first process of its job, which alone writes."""
    return int(os.environ.get("RANK", "0")) == 0


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
