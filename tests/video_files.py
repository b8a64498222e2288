"""Video files and streams that tests make: tiny scenes, real containers, real servers."""

import http.server
import os
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from local_server import LocalServer
from tiny_bundle import scene


def clip(count: int, height: int = 48, width: int = 64, polyp: bool = True) -> list[np.ndarray]:
    """`count` frames (H, W, 3) uint8 BGR of one scene with new noise in each."""
    still = scene(height, width, seed=1, polyp=polyp)[..., ::-1].astype(np.int16)
    rng = np.random.default_rng(5)
    return [
        np.clip(still + rng.integers(-3, 4, still.shape), 0, 255).astype(np.uint8)
        for _ in range(count)
    ]


def write_video(
    path: Path, frames: Sequence[np.ndarray], fps: float = 25.0, codec: str | None = None
) -> Path:
    """Write frames as a video; the suffix says the container, .avi is motion JPEG."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    codec = codec or {".avi": "MJPG", ".ts": "MPG2"}.get(path.suffix, "mp4v")
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (width, height)
    )
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def write_coded(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str,
    interlaced: bool = False,
    fps: float = 25.0,
    **options: str,
) -> Path:
    """Write frames with an encoder of FFmpeg; interlaced: both fields of a frame as they are.

    The suffix says the container; `.m2v`, `.mjpeg`, `.h264` and `.dv` are streams without one.
    """
    form = {".m2v": "mpeg2video", ".mjpeg": "mjpeg", ".h264": "h264", ".dv": "dv"}.get(path.suffix)
    av.logging.set_level(None)
    with av.open(str(path), "w", format=form) as container:
        if interlaced and codec == "libx264":
            options["x264-params"] = "tff=1"
        if codec == "libx265":
            options["x265-params"] = f"log-level=none:keyint={options.get('g', 250)}"
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        stream.height, stream.width = frames[0].shape[:2]
        formats = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}
        stream.pix_fmt = formats.get(codec, "yuv420p")
        stream.bit_rate = 8_000_000
        if interlaced:
            flags = av.codec.context.Flags
            stream.codec_context.flags |= flags.interlaced_dct | flags.interlaced_me
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def moving_bars(count: int, height: int = 96, width: int = 128, fields: bool = False) -> list:
    """`count` frames (H, W, 3) uint8 of wide grey bars that move 4 pixels a frame to the right.

    With `fields` the odd lines are from half a frame later, as an interlaced camera gives them.
    """
    y, x = np.mgrid[:height, :width]
    late = y % 2 / 2 if fields else 0 * y
    pictures = [128 + 80 * np.sin((x - 4 * (index + late)) / 6) for index in range(count)]
    return [np.repeat(one[..., None], 3, axis=2).round().astype(np.uint8) for one in pictures]


class JpegServer(LocalServer):
    """A network camera: motion JPEG over HTTP, breaking off after each of `portions` frames.

    Attributes:
        url: its address.
        connections: how often somebody asked for the stream.
    """

    def __init__(self, frames: Sequence[np.ndarray], portions: Sequence[int], pause: float = 0.0):
        """Serve on a free port of this machine.

        Args:
            frames: (H, W, 3) uint8 BGR, given out over and over.
            portions: frames of the first connection, of the second …; a further one is refused.
            pause: seconds between two frames.
        """
        self.connections = 0
        pictures = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames]
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number, outer.connections = outer.connections, outer.connections + 1
                if number >= len(portions):
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=frame")
                self.end_headers()
                try:
                    for index in range(portions[number]):
                        picture = pictures[index % len(pictures)]
                        head = (
                            "--frame\r\nContent-Type: image/jpeg\r\n"
                            f"Content-Length: {len(picture)}\r\n\r\n"
                        )
                        self.wfile.write(head.encode() + picture + b"\r\n")
                        time.sleep(pause)
                except OSError:
                    pass  # the reader has gone

            def log_message(self, *arguments: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}/live.mjpg"
        self.serve(server)
