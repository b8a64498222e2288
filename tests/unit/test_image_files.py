"""Reading image files: formats, orientation, range of the samples, limits."""

import os
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from kdas_edge.errors import UserError
from kdas_edge.image_files import (
    MAX_PIXELS,
    MAX_PIXELS_VARIABLE,
    image_size,
    is_image,
    read_image,
    read_samples,
)

MAX_SAMPLE_VALUE = 281


def picture(height: int = 24, width: int = 40) -> np.ndarray:
    """(H, W, 3) uint8, smooth, every value from 0 to 255 in some channel."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 3 % 256]
    return np.stack(channels, axis=2).astype(np.uint8)


RGB = picture()
GREY = RGB[..., 0]


def state_bits(path: Path, bits: int, channels: int) -> None:
    """Insert the chunk sBIT after the header of a PNG file."""
    content, chunk = path.read_bytes(), b"sBIT" + bytes([bits] * channels)
    whole = struct.pack(">I", channels) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + whole + content[33:])


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied_as_viewers_do(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    with Image.open(path) as file:
        file.load()
        expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]
    np.testing.assert_array_equal(read_samples(path).values, expected)
    assert read_samples(path).orientation == orientation


def test_samples_that_fill_sixteen_bits_become_the_same_eight(tmp_path: Path) -> None:
    deep = RGB.astype(np.uint16) * 257
    for suffix in ("png", "tif"):
        cv2.imwrite(str(tmp_path / f"colour.{suffix}"), deep[..., ::-1])
        cv2.imwrite(str(tmp_path / f"alpha.{suffix}"), np.dstack([deep[..., ::-1], deep[..., :1]]))
        Image.fromarray(deep[..., 0].copy()).save(tmp_path / f"grey.{suffix}")
        np.testing.assert_array_equal(read_image(tmp_path / f"colour.{suffix}"), RGB)
        np.testing.assert_array_equal(read_image(tmp_path / f"alpha.{suffix}"), RGB)
        assert (read_image(tmp_path / f"grey.{suffix}") == GREY[..., None]).all()


def test_a_dark_picture_of_repeated_bytes_is_read(tmp_path: Path) -> None:
    Image.fromarray((GREY // 4).astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == (GREY // 4)[..., None]).all()


def test_a_png_states_its_significant_bits(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) << 4).save(tmp_path / "grey.png")
    state_bits(tmp_path / "grey.png", 12, 1)
    cv2.imwrite(str(tmp_path / "colour.png"), RGB[..., ::-1].astype(np.uint16) << 2)
    state_bits(tmp_path / "colour.png", 10, 3)
    np.testing.assert_allclose(read_image(tmp_path / "grey.png")[..., 0], GREY, atol=1)
    np.testing.assert_allclose(read_image(tmp_path / "colour.png"), RGB, atol=1)


@pytest.mark.parametrize(
    ("values", "largest"),
    [
        (GREY.astype(np.uint16) << 2, 1023),
        (GREY.astype(np.uint16) << 4, 4080),  # the largest that occurs, not that may occur
        (GREY.astype(np.int32), 255),
    ],
)
def test_a_tiff_states_its_largest_value(tmp_path: Path, values: np.ndarray, largest: int) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={MAX_SAMPLE_VALUE: largest})
    np.testing.assert_allclose(read_image(tmp_path / "a.tif")[..., 0], GREY, atol=1)


def test_floats_from_0_to_1_and_white_that_is_0_are_read(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32) / 255).save(tmp_path / "float.tif")
    inverse = 65535 - GREY.astype(np.uint16) * 257
    Image.fromarray(inverse).save(tmp_path / "inverse.tif", tiffinfo={262: 0})
    for name in ("float", "inverse"):
        assert (read_image(tmp_path / f"{name}.tif") == GREY[..., None]).all()


def test_twelve_packed_bits_are_read(tmp_path: Path) -> None:
    values = (GREY.astype(np.uint32) * 4095 // 255).reshape(-1, 2)
    first, second = values[:, 0], values[:, 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
    content = packed.astype(np.uint8).tobytes()
    height, width = GREY.shape
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1)]
    tags += [(278, height), (279, len(content))]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + content)
    assert len(head) == 122
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], GREY)


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("a.png", GREY.astype(np.uint16) << 4, "0 to 4080"),
        ("a.png", GREY.astype(np.uint16), "0 to 255"),
        ("a.tif", GREY.astype(np.uint16) << 2, "0 to 1020"),
        ("a.tif", GREY.astype(np.int32), "0 to 255"),
        ("a.tif", GREY.astype(np.float32), "0 to 255"),
        ("a.tif", GREY.astype(np.float32) / 2550, "0 to 0.1"),
        ("a.tif", GREY.astype(np.int32) - 5, "-5 to 250"),
        ("a.tif", np.where(GREY > 9, np.nan, GREY).astype(np.float32), "nan"),
    ],
)
def test_samples_of_an_unknown_range_are_an_error(
    tmp_path: Path, name: str, values: np.ndarray, found: str
) -> None:
    Image.fromarray(values).save(tmp_path / name)
    with pytest.raises(UserError, match=found) as caught:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    np.testing.assert_array_equal(read_samples(tmp_path / name).values, values)


def test_colours_of_twelve_bits_in_sixteen_are_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        cv2.imwrite(str(tmp_path / name), RGB[..., ::-1].astype(np.uint16) << 4)
        with pytest.raises(UserError, match="which value is white"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp", "avif", "mpo"])
def test_several_pictures_in_a_file_are_an_error(tmp_path: Path, suffix: str) -> None:
    path, one = tmp_path / f"a.{suffix}", Image.fromarray(RGB)
    one.save(path, save_all=True, append_images=[one.transpose(Image.Transpose.ROTATE_180)])
    with pytest.raises(UserError, match="holds 2 pictures"):
        read_image(path)


def test_a_reduced_copy_beside_the_picture_is_not_counted(tmp_path: Path) -> None:
    thumbnail = Image.fromarray(RGB).reduce(4)
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(RGB).save(tmp_path / "a.tif", save_all=True, append_images=[thumbnail])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB)


def test_no_program_is_started_for_a_file_under_a_false_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: started.append(a))
    monkeypatch.setattr("os.system", started.append)
    head = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "a.png").write_bytes(head)
    with pytest.raises(UserError, match=r"none of JPEG, PNG"):
        read_image(tmp_path / "a.png")
    assert not is_image(tmp_path / "a.png") and not started


def test_a_huge_picture_is_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = struct.pack(">IIBBBBB", 200_000, 800, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=f"200000×800 pixels.*{MAX_PIXELS}.*{MAX_PIXELS_VARIABLE}"):
        read_image(tmp_path / "a.png")
    Image.fromarray(RGB).save(tmp_path / "small.png")
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "900")
    with pytest.raises(UserError, match="40×24 pixels, more than the limit of 900"):
        read_image(tmp_path / "small.png")
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "960")
    np.testing.assert_array_equal(read_image(tmp_path / "small.png"), RGB)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "many")
    with pytest.raises(UserError, match="'many' is no number"):
        read_image(tmp_path / "small.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_device_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    errors: list[str] = []

    def read() -> None:
        for path in (tmp_path / "a.png", Path("/dev/zero")):
            with pytest.raises(UserError, match="not a regular file") as caught:
                read_image(path)
            errors.append(str(caught.value))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert len(errors) == 2


def test_a_palette_and_alpha_are_kept_in_the_samples(tmp_path: Path) -> None:
    labels = (GREY // 100).astype(np.uint8)
    image = Image.fromarray(labels)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "palette.png")
    found = read_samples(tmp_path / "palette.png")
    np.testing.assert_array_equal(found.values, labels)
    assert found.mode == "P" and found.palette is not None
    np.testing.assert_array_equal(found.palette[1, :3], [255, 0, 0])
    rgba = np.dstack([RGB, GREY])
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_samples(tmp_path / "alpha.png").values, rgba)
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), RGB)
