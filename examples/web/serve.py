"""Serve the page and one bundle on this machine alone. Standard library only.

    python examples/web/serve.py BUNDLE

Nothing but the page, onnxruntime-web and the ONNX files of the bundle can be fetched, and only from
this machine. The headers forbid the page every other address, and allow WebAssembly its threads.
"""

import argparse
import json
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).resolve().parent
RUNTIME = HERE / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_CHECK = "ort.wasm.min.mjs"
# A browser runs no module and compiles no WebAssembly of another type.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
}
# Workers obey the policy of their own answer, not the page's <meta>: it is sent with everything.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "connect-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # these two make the page "cross-origin isolated": without, WebAssembly has one thread
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # a model that was exported again must not come from the browser's cache
    "Cache-Control": "no-cache",
}


class Folder:
    """A folder of which some files may be fetched, by the ending of their name."""

    def __init__(self, root: Path, suffixes: set[str]) -> None:
        self.root = root.resolve()
        self.suffixes = suffixes

    def find(self, relative: str) -> Path | None:
        """The file, or None where it is absent, of another kind, or outside the folder."""
        if "\\" in relative or "\0" in relative:
            return None
        try:
            # resolve() follows links too: one that leads outside is outside
            path = (self.root / relative).resolve()
        except OSError:
            return None
        inside = path.is_relative_to(self.root) and path.suffix in self.suffixes
        return path if inside and path.is_file() else None


def folders(bundle: Path | None, runtime: Path) -> dict[str, Folder]:
    """What is served under which prefix of the address; the longest prefix wins."""
    served = {
        "/": Folder(HERE, {".html", ".css", ".js", ".svg"}),
        "/runtime/": Folder(runtime, {".mjs", ".wasm"}),
    }
    if bundle is not None:
        served["/bundle/"] = Folder(bundle, {".json", ".onnx"})
    return served


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of known files; everything else is 404."""

    protocol_version = "HTTP/1.1"
    server_version = "kdas-edge"

    def __init__(self, served: dict[str, Folder], *arguments: object) -> None:
        self.served = served
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Send a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send what GET would, without the content."""
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        """Keep the terminal quiet; the page shows what fails."""

    def _answer(self, body: bool) -> None:
        port = self.server.server_address[1]
        # a foreign page can point its own name at 127.0.0.1; it cannot forge this header
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return self._send(403, b"this server answers to 127.0.0.1 only\n", "text/plain", body)
        path = self._find(unquote(urlsplit(self.path).path))
        if path is None:
            return self._send(404, b"not found\n", "text/plain", body)
        try:
            content = path.read_bytes()
        except OSError as error:
            return self._send(500, f"{error.strerror}\n".encode(), "text/plain", body)
        return self._send(200, content, TYPES[path.suffix], body)

    def _find(self, address: str) -> Path | None:
        if address == "/":
            address = "/index.html"
        prefixes = [prefix for prefix in self.served if address.startswith(prefix)]
        if not prefixes:
            return None
        prefix = max(prefixes, key=len)
        return self.served[prefix].find(address.removeprefix(prefix))

    def _send(self, code: int, content: bytes, kind: str, body: bool) -> None:
        self.send_response(code)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


def make_server(bundle: Path | None, runtime: Path, port: int) -> ThreadingHTTPServer:
    """Bind the server; `serve_forever` starts it.

    Raises:
        SystemExit: with one line, the bundle or onnxruntime-web is absent, or the port is taken.
    """
    if bundle is not None:
        _check_bundle(bundle)
    if not (runtime / RUNTIME_CHECK).is_file():
        raise SystemExit(
            f"error: {runtime} holds no onnxruntime-web; run `npm ci --ignore-scripts` in {HERE}"
        )
    handler = partial(Handler, folders(bundle, runtime))
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SystemExit(
            f"error: port {port} cannot be used ({reason}); choose another with --port, 0 is any"
        ) from None


def _check_bundle(bundle: Path) -> None:
    try:
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        models = [model["path"] for model in manifest["models"] if model["format"] == "onnx"]
    except OSError as error:
        raise SystemExit(
            f"error: {bundle} is no bundle (manifest.json: {error.strerror}); name the folder that "
            "`kdas-edge export` wrote"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SystemExit(
            f"error: {bundle / 'manifest.json'} is no manifest; export the bundle again"
        ) from None
    if not models:
        raise SystemExit(f"error: {bundle} holds no ONNX model; export the bundle again")


def main() -> None:
    """Read the command line and serve until Ctrl+C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "bundle", type=Path, nargs="?", help="folder of a bundle; without, choose it in the page"
    )
    parser.add_argument("--port", type=int, default=8400, help="0 is any free one (%(default)s)")
    parser.add_argument(
        "--runtime", type=Path, default=RUNTIME, help="onnxruntime-web's dist folder"
    )
    arguments = parser.parse_args()
    with make_server(arguments.bundle, arguments.runtime, arguments.port) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/  (Ctrl+C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            sys.exit(2)
        raise
