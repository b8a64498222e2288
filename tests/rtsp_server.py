"""An RTSP camera for tests: an MPEG transport stream over RTP, interleaved in the connection."""

import socketserver
import struct
import time
from pathlib import Path

from local_server import LocalServer

_PACKETS = 7  # of 188 bytes, in one RTP packet
_DESCRIPTION = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 33\r\na=rtpmap:33 MP2T/90000\r\na=control:track\r\n"
)


class RtspServer(LocalServer):
    """Gives out a transport stream once per connection, then breaks off.

    Attributes:
        url: its address, with a user and a password.
        plays: how often the stream was asked for.
    """

    def __init__(self, stream: Path, plays: int, pause: float = 0.002):
        """Serve on a free port of this machine.

        Args:
            stream: a .ts file.
            plays: connections that get it; later ones are hung up on.
            pause: seconds between two packets.
        """
        self.plays = 0
        content = stream.read_bytes()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                if outer.plays >= plays:
                    return
                while (request := self._request()) is not None:
                    method, number = request
                    self._answer(method, number)
                    if method == "PLAY":
                        outer.plays += 1
                        self._play()
                        return

            def _request(self) -> tuple[str, str] | None:
                lines = []
                while (line := self.rfile.readline().decode().strip()) or not lines:
                    if not line:
                        return None
                    lines.append(line)
                headers = dict(one.split(": ", 1) for one in lines[1:])
                return lines[0].split()[0], headers["CSeq"]

            def _answer(self, method: str, number: str) -> None:
                extra, body = "Session: 1\r\n", ""
                if method == "OPTIONS":
                    extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif method == "DESCRIBE":
                    body = _DESCRIPTION
                    extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif method == "SETUP":
                    extra += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{extra}\r\n{body}".encode())

            def _play(self) -> None:
                step = 188 * _PACKETS
                try:
                    for number, start in enumerate(range(0, len(content), step)):
                        ticks = number * 1000
                        header = struct.pack(">BBHII", 0x80, 33, number % 65536, ticks, 1)
                        packet = header + content[start : start + step]
                        self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                        time.sleep(pause)
                except OSError:
                    pass  # the reader has gone

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        server = Server(("127.0.0.1", 0), Handler)
        port = server.server_address[1]
        self.url = f"rtsp://nurse:secret@127.0.0.1:{port}/room4"
        self.serve(server)
