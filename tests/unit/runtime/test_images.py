import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_bundle import make_tiny_bundle, scene

from kdas_edge.errors import UserError
from kdas_edge.runtime.images import find_images, segment_files, stage_percentiles
from kdas_edge.runtime.segmenter import Segmenter


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    path = make_tiny_bundle(tmp_path_factory.mktemp("images") / "tiny")
    with Segmenter.load(path, "openvino:CPU:threads=1") as loaded:
        yield loaded


def test_a_mask_on_disk_is_the_mask_in_memory(segmenter, tmp_path):
    frame = scene(100, 140)
    Image.fromarray(frame).save(tmp_path / "a.png")
    rows = list(segment_files(segmenter, [tmp_path / "a.png"], tmp_path / "out"))
    written = cv2.imread(str(tmp_path / "out/masks/a.png"), cv2.IMREAD_UNCHANGED)
    expected = segmenter.segment(np.ascontiguousarray(frame[..., ::-1])).mask
    np.testing.assert_array_equal(written, expected * np.uint8(255))
    assert rows[0].polyp_fraction == expected.mean() and rows[0].components == 1


def test_an_overlay_changes_only_pixels_near_the_contour(segmenter, tmp_path):
    frame = scene(100, 140)
    Image.fromarray(frame).save(tmp_path / "a.png")
    list(segment_files(segmenter, [tmp_path / "a.png"], tmp_path / "out"))
    drawn = np.asarray(Image.open(tmp_path / "out/overlays/a.png"))
    mask = np.asarray(Image.open(tmp_path / "out/masks/a.png"))
    kernel = np.ones((7, 7), np.uint8)
    near = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, kernel) > 0
    changed = (drawn != frame).any(axis=2)
    assert changed.any() and not changed[~near].any()
    # the inside of the polyp is left as it was
    inside = cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0
    assert inside.any() and not changed[inside].any()


def test_components_are_counted_and_none_is_zero(segmenter, tmp_path):
    two = np.concatenate([scene(80, 80), scene(80, 80, seed=4)], axis=1)
    Image.fromarray(two).save(tmp_path / "two.png")
    Image.fromarray(scene(polyp=False)).save(tmp_path / "none.png")
    rows = list(
        segment_files(segmenter, [tmp_path / "two.png", tmp_path / "none.png"], tmp_path / "out")
    )
    assert [row.components for row in rows] == [2, 0]
    assert rows[1].polyp_fraction == 0


def test_percentiles_leave_out_images_that_failed(segmenter, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    rows = list(segment_files(segmenter, [tmp_path / "bad.png"], tmp_path / "out"))
    assert "0 bytes" in rows[0].error
    assert stage_percentiles(rows) == {}
    assert not (tmp_path / "out").exists()


def test_images_of_one_stem_have_results_of_their_own_and_the_rest_is_named(segmenter, tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "a.jpg", "b.png", "c.gif", "d.jp2", "e.avif", "sub/f.png"):
        Image.fromarray(scene()).save(folder / name)
    (folder / ".DS_Store").write_bytes(b"x")
    found = find_images(folder)
    assert [path.name for path in found.files] == ["a.jpg", "a.png", "b.png"]
    assert found.skipped == ["c.gif", "d.jp2", "e.avif", "sub/"]
    list(segment_files(segmenter, found.files, tmp_path / "out", results=found.results))
    written = sorted(path.name for path in (tmp_path / "out/masks").iterdir())
    assert written == ["a.jpg.png", "a.png.png", "b.png"]


def test_each_image_of_a_folder_has_a_picture_of_its_own(segmenter, tmp_path):
    """The picture lies left in one image and right in the next, of the same size."""
    files = []
    for name, x in (("left", 40), ("right", 300)):
        frame = np.zeros((240, 480, 3), np.uint8)
        frame[20:220, x : x + 150] = scene(200, 150, seed=1)
        Image.fromarray(frame).save(tmp_path / f"{name}.png")
        files.append(tmp_path / f"{name}.png")
    with Segmenter.load(segmenter.bundle.path, segmenter.target, roi="auto") as cropping:
        rows = list(segment_files(cropping, files, tmp_path / "out"))
    (left,), (right,) = (row.boxes for row in rows)
    # the same polyp at the same place of the picture
    assert abs(right[0] - left[0] - 260) <= 2 and abs(right[1] - left[1]) <= 2


def test_a_folder_of_folders_names_them(tmp_path):
    for name in ("TestDataset", "TrainDataset"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="name one of its folders: TestDataset/, TrainDataset/"):
        find_images(tmp_path)
    with pytest.raises(UserError, match="holds no image"):
        find_images(tmp_path / "TestDataset")
