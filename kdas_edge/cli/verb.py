"""What holds for every verb, before and around it: no output destroys an input or another's work.

The rules are in `kdas_edge.files.outputs`; this applies them to the options of a verb, which are
known by their names.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from kdas_edge.errors import UserError

# options whose value is a file to write, and those that name a folder, or either
OUTPUT_FILES = ("json", "jsonl", "csv", "html", "record")
OUTPUT_FOLDERS = ("out", "maps_out", "report")
# verbs whose --out holds one folder a run, or one result a recording: these are locked by
# themselves, so that several processes may share the folder
SHARED_OUT = ("train", "distill", "quantize", "predict", "dicom")
# in these, --out is the parent of the output, which only the recipe names
RUN_VERBS = ("train", "distill", "quantize")
# inputs that are text because they may be something else than a path
TEXT_INPUTS = ("source", "sources", "data", "teacher", "student", "models", "overrides")


class Verb(TyperCommand):
    """A command that checks and locks its outputs before it begins."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb.

        Raises:
            UserError: an output is refused, or another process writes it.
        """
        from kdas_edge import files  # not for --help

        with contextlib.ExitStack() as stack:
            outputs = self._outputs(ctx)
            inputs = self._inputs(ctx)
            seen: dict[str, str] = {}
            for name, path in outputs.items():
                label = self._label(name)
                if name in OUTPUT_FILES:
                    files.check_output_file(path, inputs, what=label)
                elif not (name == "out" and self.name in RUN_VERBS):
                    files.check_inputs_kept(path, inputs, label)
                other = seen.setdefault(os.path.realpath(path), label)
                if other != label and not (files.is_stream(path) and path != Path("-")):
                    raise UserError(
                        f"{label} {path} is the same file as {other}; choose another name"
                    )
            for name, path in outputs.items():
                if not (name == "out" and self.name in SHARED_OUT):
                    stack.enter_context(files.lock(path))
            if any(path == files.STANDARD_OUTPUT for path in outputs.values()):
                # the result alone is on the standard output, tables go beside the messages
                stack.enter_context(files.standard_output(sys.stdout))
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            return super().invoke(ctx)

    def _outputs(self, ctx: Any) -> dict[str, Path]:
        return {
            name: Path(ctx.params[name])
            for name in (*OUTPUT_FILES, *OUTPUT_FOLDERS)
            if ctx.params.get(name) is not None
        }

    def _inputs(self, ctx: Any) -> list[Path]:
        found = []
        for name, value in ctx.params.items():
            if name in OUTPUT_FILES or name in OUTPUT_FOLDERS:
                continue
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, Path):
                    found.append(one)
                elif isinstance(one, str) and name in TEXT_INPUTS:
                    found.append(Path(one.partition("=")[2] or one))
        return [path for path in found if _exists(path)]

    def _label(self, name: str) -> str:
        for parameter in self.params:
            if parameter.name == name and parameter.param_type_name == "option":
                return max(parameter.opts, key=len)
        return ""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
