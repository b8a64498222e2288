"""DICOM files in many encodings, generated: no patient, no camera. Encoders beside the product's
decoders are written here where no package has one (JPEG Lossless, H.264)."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1"
VIDEO_ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
TRUE_COLOR = "1.2.840.10008.5.1.4.1.1.7.4"
GREY_BYTES = "1.2.840.10008.5.1.4.1.1.7.2"
MPEG2 = "1.2.840.10008.1.2.4.100"
H264 = "1.2.840.10008.1.2.4.102"
PATIENT = {
    "PatientName": "Müster^Änne",
    "PatientID": "ID-4711",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
}


def picture(rgb: np.ndarray, sop_class: str = ENDOSCOPIC, frames: int | None = None) -> Dataset:
    """An uncompressed RGB object; `rgb` is (H, W, 3) or (N, H, W, 3) uint8."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(ds, keyword, generate_uid())
    for keyword, value in PATIENT.items():
        setattr(ds, keyword, value)
    ds.StudyDate, ds.StudyTime = "20260102", "101112"
    ds.StudyID, ds.AccessionNumber = "77", "ACC-1"
    ds.ReferringPhysicianName = "Doctor^Some"
    # type 3: these must not travel
    ds.PatientAge, ds.PatientAddress = "056Y", "SECRET STREET 1"
    ds.PatientComments, ds.OtherPatientIDs = "SECRET COMMENT", "SECRET-OTHER"
    ds.StudyDescription, ds.InstitutionName = "SECRET STUDY", "SECRET HOSPITAL"
    ds.OperatorsName, ds.DeviceSerialNumber = "SECRET^Operator", "SECRET-SERIAL"
    ds.Modality, ds.Manufacturer = "ES", "Tests"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    if frames is not None or rgb.ndim == 4:
        ds.NumberOfFrames = len(rgb) if frames is None else frames
    ds.Rows, ds.Columns = rgb.shape[-3:-1]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompression = "00"
    ds.PixelData = rgb.tobytes()
    ds["PixelData"].VR = "OB"
    return ds


def save(ds: Dataset, path: Path) -> Path:
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.save_as(path, enforce_file_format=True)
    return path


def encapsulated(ds: Dataset, frames: list[bytes], syntax: str, model: str = "RGB") -> Dataset:
    """Replace the pixels of a picture by encoded frames."""
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PhotometricInterpretation = model
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    return ds


def native(ds: Dataset, pixels: np.ndarray, model: str, **attributes: object) -> Dataset:
    """Replace the pixels of a picture by other uncompressed ones."""
    ds.PhotometricInterpretation = model
    if model.startswith("MONO") or model == "PALETTE COLOR":
        ds.SamplesPerPixel = 1
        del ds.PlanarConfiguration
    if pixels.dtype.itemsize == 2:
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    return ds


def to_ybr(rgb: np.ndarray) -> np.ndarray:
    """PS3.3 C.7.6.3.1.2, in floating point."""
    matrix = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    return np.rint(rgb @ matrix.T + (0, 128, 128)).clip(0, 255).astype(np.uint8)


def pillow_jpeg(rgb: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def encodings(rgb: np.ndarray) -> dict[str, tuple[Dataset, np.ndarray, int]]:
    """Every encoding that is read: name -> (object, expected RGB, largest difference allowed).

    Args:
        rgb: (H, W, 3) uint8 with even sides.
    """
    grey = rgb[..., 0]
    as_grey = np.repeat(grey[..., np.newaxis], 3, axis=2)
    cases: dict[str, tuple[Dataset, np.ndarray, int]] = {}
    cases["rgb"] = picture(rgb), rgb, 0
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    cases["rgb by plane"] = native(picture(rgb), planes, "RGB", PlanarConfiguration=1), rgb, 0
    cases["rgb implicit"] = picture(rgb), rgb, 0
    cases["rgb implicit"][0].file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    big = native(picture(rgb), (grey.astype(int) * 256).astype(">u2"), "MONOCHROME2")
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    cases["grey 16 bits big endian"] = big, as_grey, 0
    cases["rgb 16 bits"] = native(picture(rgb), rgb.astype("<u2") * 256 + 77, "RGB"), rgb, 0
    cases["rgb 10 of 16 bits"] = (
        native(picture(rgb), rgb.astype("<u2") * 4 + 3, "RGB", BitsStored=10, HighBit=9), rgb, 0
    )  # fmt: skip
    ybr = to_ybr(rgb)
    cases["ybr full"] = native(picture(rgb), ybr, "YBR_FULL"), rgb, 2
    pairs = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    shared = ybr.copy()
    shared[:, 1::2, 1:] = shared[:, ::2, 1:]
    chroma = shared[..., 1:].astype(float) - 128
    back = np.stack(
        [
            shared[..., 0] + 1.402 * chroma[..., 1],
            shared[..., 0] - 0.344136 * chroma[..., 0] - 0.714136 * chroma[..., 1],
            shared[..., 0] + 1.772 * chroma[..., 0],
        ],
        axis=-1,
    )
    half = np.rint(back).clip(0, 255).astype(np.uint8)
    cases["ybr full 422"] = native(picture(rgb), pairs, "YBR_FULL_422"), half, 1
    cases["monochrome 2"] = native(picture(rgb), grey, "MONOCHROME2"), as_grey, 0
    cases["monochrome 1"] = native(picture(rgb), 255 - grey, "MONOCHROME1"), as_grey, 0
    window = native(
        picture(rgb), grey.astype("<u2") + 1000, "MONOCHROME2", WindowCenter=1128, WindowWidth=256
    )
    cases["grey 16 bits with a window"] = window, as_grey, 1
    indices, palette = _palette(rgb)
    for bits in (8, 16):
        ds = native(picture(rgb), indices, "PALETTE COLOR")
        for channel, colour in enumerate(("Red", "Green", "Blue")):
            values = palette[:, channel].astype(np.uint8 if bits == 8 else "<u2")
            values = values if bits == 8 else values * 257
            setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
            setattr(ds, f"{colour}PaletteColorLookupTableData", values.tobytes())
        cases[f"palette of {bits} bits"] = ds, palette[indices].astype(np.uint8), 0
    for name, syntax in (("rle", RLELossless), ("jpeg-ls", JPEGLSLossless)):
        ds = picture(rgb)
        ds.compress(syntax, generate_instance_uid=False)
        cases[name] = ds, rgb, 0
    stream = pillow_jpeg(rgb)
    decoded = np.asarray(Image.open(io.BytesIO(stream)))
    ds = encapsulated(picture(rgb), [stream], JPEGBaseline8Bit, "YBR_FULL_422")
    ds.LossyImageCompression = "01"
    cases["jpeg baseline"] = ds, decoded, 2
    ds = encapsulated(picture(rgb), [stream], JPEGExtended12Bit, "YBR_FULL_422")
    cases["jpeg extended"] = ds, decoded, 2
    # files in the wild say RGB although the stream is JFIF, hence YCbCr
    cases["jpeg that says rgb"] = (
        encapsulated(picture(rgb), [stream], JPEGBaseline8Bit, "RGB"), decoded, 2
    )  # fmt: skip
    stream = pillow_jpeg(rgb, keep_rgb=True)
    decoded = np.asarray(Image.open(io.BytesIO(stream)))
    cases["jpeg of rgb"] = encapsulated(picture(rgb), [stream], JPEGBaseline8Bit), decoded, 0
    lossless = jpeg_lossless(rgb)
    for syntax, name in ((JPEGLosslessSV1, "jpeg lossless"), (JPEGLossless, "jpeg process 14")):
        cases[name] = encapsulated(picture(rgb), [lossless], syntax), rgb, 0
    grey_stream = jpeg_lossless(grey[..., np.newaxis])
    ds = native(picture(rgb), grey, "MONOCHROME2")
    cases["jpeg lossless grey"] = (
        encapsulated(ds, [grey_stream], JPEGLosslessSV1, "MONOCHROME2"), as_grey, 0
    )  # fmt: skip
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG2000", irreversible=False, no_jp2=True, mct=1)
    cases["jpeg 2000"] = (
        encapsulated(picture(rgb), [file.getvalue()], JPEG2000Lossless, "YBR_RCT"), rgb, 0
    )  # fmt: skip
    return cases


def _palette(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) uint8 indices and (256, 3) colours of an image."""
    image = Image.fromarray(rgb).quantize(256)
    colours = np.zeros((256, 3), dtype=np.uint16)
    values = np.array(image.getpalette()).reshape(-1, 3)
    colours[: len(values)] = values
    return np.asarray(image), colours


def jpeg_lossless(samples: np.ndarray) -> bytes:
    """Encode (H, W, C) uint8 as ITU-T T.81 process 14, selection value 1 (predict from the left).

    One Huffman table of nine codes of four bits serves all components.
    """
    height, width, count = samples.shape
    values = samples.astype(int)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 128
    bits = []
    for difference in (values - predicted).ravel():
        category = int(abs(difference)).bit_length()
        bits.append(f"{category:04b}")
        if category:
            extra = difference if difference > 0 else difference + (1 << category) - 1
            bits.append(f"{extra:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    entropy = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content

    components = b"".join(bytes([index + 1, 0x11, 0]) for index in range(count))
    frame = bytes([8]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([count])
    table = bytes([0, 0, 0, 0, 9, *[0] * 12, *range(9)])
    scan = bytes([count]) + b"".join(bytes([index + 1, 0]) for index in range(count))
    return (
        b"\xff\xd8"
        + segment(0xC3, frame + components)
        + segment(0xC4, table)
        + segment(0xDA, scan + bytes([1, 0, 0]))
        + entropy
        + b"\xff\xd9"
    )


def mpeg2(frames: np.ndarray, path: Path) -> bytes:
    """Encode (N, H, W, 3) uint8 RGB as an MPEG-2 program stream with OpenCV."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    size = (frames.shape[2], frames.shape[1])
    writer = cv2.VideoWriter(
        str(path.with_suffix(".mpg")), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"MPG2"), 25.0, size
    )
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path.with_suffix(".mpg").read_bytes()


def h264(frames: np.ndarray) -> bytes:
    """Encode (N, H, W, 3) uint8 RGB as H.264 whose macroblocks are all stored as they are (I_PCM).

    Sides are multiples of 16. ITU-T H.264 sections 7.3.2 to 7.3.5.
    """
    height, width = frames.shape[1:3]

    def ue(value: int) -> str:
        return "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"

    def unit(header: int, bits: str, tail: bytes = b"") -> bytes:
        # bits that end in the middle of a byte are closed by the stop bit
        if len(bits) % 8:
            bits += "1" + "0" * (-(len(bits) + 1) % 8)
        body = int(bits, 2).to_bytes(len(bits) // 8, "big") + tail
        return b"\0\0\0\1" + bytes([header]) + body.replace(b"\0\0\1", b"\0\0\3\1")

    sequence = f"{66:08b}{0:08b}{40:08b}" + ue(0) + ue(0) + ue(2) + ue(1) + "0"
    sequence += ue(width // 16 - 1) + ue(height // 16 - 1) + "1" + "1" + "0" + "0"
    parameters = ue(0) + ue(0) + "0" + "0" + ue(0) + ue(0) + ue(0) + "0" + "00" + ue(0) * 3 + "000"
    stream = unit(0x67, sequence) + unit(0x68, parameters)
    for index, frame in enumerate(frames):
        ycc = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2YUV_I420)
        luma = ycc[:height].clip(16, 235)
        chroma = ycc[height:].reshape(2, height // 2, width // 2).clip(16, 240)
        bits = ue(0) + ue(7) + ue(0) + "0000" + ue(index % 2) + "00" + ue(0)
        body, first = b"", True
        for y in range(0, height, 16):
            for x in range(0, width, 16):
                start = (bits if first else "") + ue(25)
                start += "0" * (-len(start) % 8)
                body += int(start, 2).to_bytes(len(start) // 8, "big")
                body += luma[y : y + 16, x : x + 16].tobytes()
                for plane in chroma:
                    body += plane[y // 2 : y // 2 + 8, x // 2 : x // 2 + 8].tobytes()
                first = False
        stream += unit(0x65, f"{body[0]:08b}", body[1:] + b"\x80")
    return stream
