"""A server of a test, on a free port of this machine."""

import socketserver
import threading
from typing import Self


class LocalServer:
    """Serves in a thread until the block ends."""

    def serve(self, server: socketserver.BaseServer) -> None:
        self._server = server
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
