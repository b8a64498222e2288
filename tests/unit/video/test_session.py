import pytest
from PIL import Image
from tiny_bundle import scene
from video_files import clip, write_video

from kdas_edge.errors import UserError
from kdas_edge.video.session import VideoOptions, is_video, open_reader, parse_roi
from kdas_edge.video.sources import parse_source
from kdas_edge.video.stabiliser import StabilityOptions


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "frames").mkdir()
    for index in range(3):
        Image.fromarray(scene(seed=index)).save(tmp_path / f"frames/{index}.png")
    return tmp_path / "frames"


def test_a_folder_is_images_until_it_has_a_rate(folder):
    source = parse_source(str(folder))
    assert not is_video(source, VideoOptions())
    assert is_video(source, VideoOptions(fps=25))
    assert is_video(parse_source("camera:0"), VideoOptions())


@pytest.mark.parametrize(
    "options",
    [
        {"frames": True},
        {"show": True},
        {"realtime": True},
        {"limit": 3},
        {"budget_ms": 33},
        {"stability": StabilityOptions(smooth=0.5)},
        {"stability": StabilityOptions(persist=(2, 3))},
        {"stability": StabilityOptions(hysteresis=0.2)},
    ],
)
def test_options_of_time_are_refused_for_images_and_say_what_to_add(folder, options):
    with pytest.raises(UserError, match=r"needs frames in time.*add --fps 25"):
        is_video(parse_source(str(folder)), VideoOptions(**options))
    with pytest.raises(UserError, match="one image: leave it out"):
        is_video(parse_source(str(folder / "0.png")), VideoOptions(**options))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fps", 0),
        ("fps", -1),
        ("fps", float("nan")),
        ("fps", float("inf")),
        ("budget_ms", 0),
        ("limit", 0),
        ("reconnect", -1),
    ],
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} .* is not in"):
        VideoOptions(**{name: value})


def test_a_folder_with_a_rate_becomes_frames_in_time(folder):
    reader = open_reader(parse_source(str(folder)), VideoOptions(fps=12.5))
    assert (reader.fps, reader.expected, reader.live) == (12.5, 3, False)
    video = write_video(folder / "a.avi", clip(4))
    reader = open_reader(parse_source(str(video)), VideoOptions(realtime=True))
    assert reader.live and reader.expected == 4
    reader.close()


def test_a_region_is_read():
    assert parse_roi(None) is None and parse_roi("auto") == "auto"
    assert parse_roi("1,2,30,40") == [1, 2, 30, 40]
    for text in ("", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,2,3,4", "Auto"):
        with pytest.raises(UserError, match="x,y,width,height"):
            parse_roi(text)
