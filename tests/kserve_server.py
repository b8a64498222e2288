"""A small KServe-v2 HTTP server on 127.0.0.1 that really runs ONNX models with ONNX Runtime.

It stands in for OpenVINO Model Server and Triton, which are containers and cannot run here. Of the
protocol it knows what both share and the client uses: a model's metadata, and inference with
tensors as bytes behind the JSON header (or in it).
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort

HEADER = "Inference-Header-Content-Length"
TYPES = {
    "tensor(float)": ("FP32", np.dtype(np.float32)),
    "tensor(uint8)": ("UINT8", np.dtype(np.uint8)),
}


class RefusedError(Exception):
    """A request that a server refuses, with the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    models: ClassVar[dict[str, Path]]
    binary: ClassVar[bool]

    def do_GET(self) -> None:
        self._answer(lambda: (json.dumps(self._metadata()).encode(), None))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(lambda: self._infer(body))

    def _answer(self, make: Any) -> None:
        try:
            content, header_length = make()
            self.send_response(200)
        except RefusedError as error:
            content, header_length = json.dumps({"error": str(error)}).encode(), None
            self.send_response(error.status)
        if header_length is not None:
            self.send_header(HEADER, str(header_length))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _session(self) -> ort.InferenceSession:
        word = self.path.split("/")
        if word[:3] != ["", "v2", "models"] or word[3] not in self.models:
            raise RefusedError(404, f"unknown model or address {self.path}")
        return ort.InferenceSession(str(self.models[word[3]]), providers=["CPUExecutionProvider"])

    def _metadata(self) -> dict[str, Any]:
        session = self._session()

        def tensors(found: Any) -> list[dict[str, Any]]:
            return [
                {
                    "name": item.name,
                    "datatype": TYPES[item.type][0],
                    "shape": [n if isinstance(n, int) else -1 for n in item.shape],
                }
                for item in found
            ]

        return {
            "name": self.path.split("/")[3],
            "inputs": tensors(session.get_inputs()),
            "outputs": tensors(session.get_outputs()),
        }

    def _infer(self, body: bytes) -> tuple[bytes, int | None]:
        if not self.path.endswith("/infer"):
            raise RefusedError(404, f"unknown address {self.path}")
        session = self._session()
        length = int(self.headers[HEADER])
        request, rest = json.loads(body[:length]), body[length:]
        [tensor], [wanted] = request["inputs"], request["outputs"]
        [expected] = session.get_inputs()
        name, kind = TYPES[expected.type]
        if (tensor["name"], tensor["datatype"]) != (expected.name, name):
            raise RefusedError(400, f"input is {expected.name} {name}")
        if tensor["parameters"]["binary_data_size"] != len(rest):
            raise RefusedError(400, "binary_data_size is not the size of the data")
        if len(rest) != kind.itemsize * int(np.prod(tensor["shape"])):
            raise RefusedError(400, "the data is not of this shape")
        x = np.frombuffer(rest, kind).reshape(tensor["shape"])
        try:
            [y] = session.run([wanted["name"]], {expected.name: x})
        except Exception as error:
            raise RefusedError(400, str(error).splitlines()[0]) from None
        output: dict[str, Any] = {
            "name": wanted["name"],
            "datatype": "FP32",
            "shape": list(y.shape),
        }
        if not self.binary:
            output["data"] = y.ravel().tolist()
            return json.dumps({"outputs": [output]}).encode(), None
        output["parameters"] = {"binary_data_size": y.nbytes}
        head = json.dumps({"outputs": [output]}).encode()
        return head + y.tobytes(), len(head)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def kserve(models: dict[str, Path], binary: bool = True) -> Iterator[str]:
    """Serve ONNX files by name; yields the address.

    Args:
        models: name in the URL -> file.
        binary: answer in bytes; False answers in JSON, as a server may.
    """
    handler = type("Handler", (_Handler,), {"models": models, "binary": binary})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
