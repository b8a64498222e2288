import threading

import numpy as np
import pytest
from rtsp_server import RtspServer
from video_files import JpegServer, clip, moving_bars, write_coded, write_video

from kdas_edge.errors import UserError
from kdas_edge.video.live import LiveReader
from kdas_edge.video.sources import parse_source


def drain(reader) -> tuple[list, str]:
    """All frames, and the error at the end."""
    found = []
    with pytest.raises(UserError) as caught:
        for frame in reader.frames(threading.Event()):
            found.append(frame)
    return found, str(caught.value)


def test_a_network_camera_that_breaks_off_comes_back_and_every_frame_counts(capsys):
    frames = clip(5)
    with JpegServer(frames, portions=[6, 4]) as server:
        reader = LiveReader(parse_source(server.url), attempts=2, first_pause=0.01)
        assert reader.live and reader.size == (48, 64)
        found, error = drain(reader)
    assert [frame.index for frame in found] == list(range(10))
    assert reader.reconnected == 1
    assert np.abs(found[7].image.astype(int) - frames[1]).mean() < 6
    assert "broke off after 10 frames and did not come back, tried 2 times" in error
    said = capsys.readouterr().err.splitlines()
    assert "broke off after 6 frames; reconnecting in 0.01 s (attempt 1 of 2)" in said[0]
    assert said[1].endswith("is back")
    # the pause grows
    assert "in 0.01 s (attempt 1 of 2)" in said[2] and "in 0.02 s (attempt 2 of 2)" in said[3]


def test_an_rtsp_camera_is_read_and_its_password_never_shown(tmp_path, capsys):
    stream = write_video(tmp_path / "a.ts", clip(40))
    with RtspServer(stream, plays=2) as server:
        reader = LiveReader(parse_source(server.url), attempts=1, first_pause=0.01)
        found, error = drain(reader)
    assert len(found) > 60 and reader.reconnected == 1 and server.plays == 2
    said = capsys.readouterr().err
    assert "is back" in said and "secret" not in said + error + reader.name


def test_an_interlaced_stream_has_pictures_without_combs(tmp_path):
    woven = moving_bars(40, fields=True)
    stream = write_coded(tmp_path / "a.ts", woven, "mpeg2video", interlaced=True)
    with RtspServer(stream, plays=1) as server:
        found, _ = drain(LiveReader(parse_source(server.url), attempts=0))
    assert len(found) > 30

    def combing(image):
        return np.abs(np.diff(image.astype(int), n=2, axis=0)).mean()

    assert max(combing(frame.image) for frame in found) < combing(woven[0]) / 3
    assert min(frame.image.std() for frame in found) > 30  # the bars, not a grey or black frame


def test_without_attempts_the_first_break_is_the_end():
    with JpegServer(clip(2), portions=[3, 3]) as server:
        found, error = drain(LiveReader(parse_source(server.url), attempts=0))
        assert server.connections == 1
    assert len(found) == 3 and "not tried (--reconnect 0)" in error


def test_stop_ends_the_waiting_between_attempts():
    with JpegServer(clip(2), portions=[3]) as server:
        reader = LiveReader(parse_source(server.url), attempts=9, first_pause=60)
        stop, found = threading.Event(), []
        thread = threading.Thread(target=lambda: found.extend(reader.frames(stop)), daemon=True)
        thread.start()
        while len(found) < 3 and thread.is_alive():
            thread.join(0.01)
        stop.set()
        thread.join(5)
    assert not thread.is_alive() and len(found) == 3


def test_an_absent_camera_and_a_dead_address_are_one_line():
    with pytest.raises(UserError, match="there is no camera 97"):
        LiveReader(parse_source("camera:97"))
    with pytest.raises(UserError, match="cannot be opened; check the address") as caught:
        LiveReader(parse_source("rtsp://nurse:secret@127.0.0.1:1/x"))
    assert "secret" not in str(caught.value)


def test_a_recording_that_a_server_gives_out_ends_where_it_ends(tmp_path):
    import functools
    import http.server

    write_video(tmp_path / "a.avi", clip(12))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *arguments: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.avi"
        reader = LiveReader(parse_source(url), attempts=3)
        found = list(reader.frames(threading.Event()))
        server.shutdown()
    assert len(found) == 12 and reader.expected == 12 and reader.reconnected == 0
