"""Reading and writing files: bounded reads, atomic writes, what an output may be, locks.

One place decides for all verbs what may be written: `outputs`. Nothing half-written is ever seen:
`writing` uses a temporary name, then a rename; `temporary` removes what a killed process left.
"""

from kdas_edge.files.locks import lock
from kdas_edge.files.outputs import (
    STANDARD_OUTPUT,
    check_inputs_kept,
    check_output_directory,
    check_output_file,
    is_stream,
)
from kdas_edge.files.reading import read_bytes, read_json, read_json_lines, real_path, sha256
from kdas_edge.files.temporary import sweep, temporary_path
from kdas_edge.files.writing import (
    json_bytes,
    open_stream,
    staged_directory,
    standard_output,
    write_bytes_atomic,
    write_json,
    write_text_atomic,
)

__all__ = [
    "STANDARD_OUTPUT",
    "check_inputs_kept",
    "check_output_directory",
    "check_output_file",
    "is_stream",
    "json_bytes",
    "lock",
    "open_stream",
    "read_bytes",
    "read_json",
    "read_json_lines",
    "real_path",
    "sha256",
    "staged_directory",
    "standard_output",
    "sweep",
    "temporary_path",
    "write_bytes_atomic",
    "write_json",
    "write_text_atomic",
]
