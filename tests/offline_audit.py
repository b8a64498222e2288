"""A process under watch: it records look-ups, connections and files opened for writing.

`python offline_audit.py LOG STEPS.json` runs each list of words as a `kdas-edge` command line in
one process, or a single string as Python, and prints the exit codes.
"""

import contextlib
import json
import os
import runpy
import sys
from pathlib import Path

NETWORK = (
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
    "socket.getnameinfo", "socket.sendto", "socket.sendmsg", "urllib.Request",
)  # fmt: skip
CHANGES = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(log: str) -> None:
    """Append one JSON line to `log` for each event of this process."""
    record = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in NETWORK:
            what = ["network", event, repr(arguments[-2:])]
        elif event == "open" and isinstance(arguments[0], str) and arguments[2] & WRITING:
            what = ["write", arguments[0]]
        elif event in CHANGES:
            what = ["write", str(arguments[1 if event == "os.rename" else 0])]
        else:
            return
        os.write(record, (json.dumps(what) + "\n").encode())

    sys.addaudithook(hook)


if __name__ == "__main__":
    watch(sys.argv[1])
    steps = json.loads(Path(sys.argv[2]).read_text())
    codes = []
    for step in steps:
        code = 0
        try:
            if isinstance(step, str):
                exec(step, {})
            else:
                sys.argv = ["kdas-edge", *step]
                with contextlib.redirect_stdout(sys.stderr):
                    runpy.run_module("kdas_edge", run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        codes.append(code)
    print(json.dumps(codes))
