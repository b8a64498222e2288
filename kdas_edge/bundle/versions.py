"""Which format version a model file has and who wrote it, read from the file without a runtime.

A device has neither the `onnx` package nor, perhaps, the runtime that the file is for; both formats
say on their first level what is asked here.
"""

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# protobuf wire types, and the fields of ONNX's ModelProto and OperatorSetIdProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_IR_VERSION, _PRODUCER_NAME, _PRODUCER_VERSION, _OPSET_IMPORT = 1, 2, 3, 8
_DOMAIN, _VERSION = 1, 2
_STANDARD = ("", "ai.onnx")
# a length that no name or operator set has; longer fields are passed over unread
_SHORT = 4096


@dataclass(frozen=True)
class Versions:
    """What a model file says of itself; None where it does not.

    Attributes:
        ir_version: of the file format.
        opset: newest standard operator set that a node needs.
        written_by: program and version.
        foreign: operator domains of the file that are not standard.
    """

    ir_version: int | None
    opset: int | None
    written_by: str | None
    foreign: tuple[str, ...] = ()


UNKNOWN = Versions(None, None, None)


def file_versions(path: Path) -> Versions:
    """Read the versions of an `.xml` or `.onnx` file; all None for another format.

    Raises:
        ValueError: the file is damaged.
    """
    if path.suffix == ".xml":
        return _openvino(path)
    if path.suffix == ".onnx":
        return _onnx(path)
    return UNKNOWN


def _openvino(path: Path) -> Versions:
    """The root's version, the layers' operator sets, and the runtime that wrote them."""
    ir_version, written_by = None, None
    opsets, foreign = set(), set()
    try:
        for event, element in ElementTree.iterparse(path, ("start", "end")):
            if event == "start" and element.tag == "net":
                ir_version = int(element.attrib["version"])
            elif event == "start" and element.tag == "layer":
                name = element.attrib.get("version", "")
                if name.startswith("opset") and name[5:].isdecimal():
                    opsets.add(int(name[5:]))
                else:
                    foreign.add(name)
            elif event == "start" and element.tag == "Runtime_version":
                # 2026.4.1-22982-e213a147257-releases/2026/4
                written_by = f"openvino {element.attrib.get('value', '').partition('-')[0]}".strip()
            elif event == "end":
                element.clear()
    except (ElementTree.ParseError, KeyError) as error:
        raise ValueError(f"{path.name} is no OpenVINO IR ({error})") from None
    if ir_version is None:
        raise ValueError(f"{path.name} is no OpenVINO IR")
    return Versions(ir_version, max(opsets, default=None), written_by, tuple(sorted(foreign)))


def _onnx(path: Path) -> Versions:
    """ONNX's own fields; the graph, most of the file, is passed over."""
    ir_version, opset = None, None
    producer = {_PRODUCER_NAME: "", _PRODUCER_VERSION: ""}
    foreign = []
    with path.open("rb") as file:
        size = path.stat().st_size
        while file.tell() < size:
            key = _varint(file)
            field, wire = key >> 3, key & 7
            if wire == _VARINT:
                value = _varint(file)
                ir_version = value if field == _IR_VERSION else ir_version
            elif wire == _BYTES:
                length = _varint(file)
                if field in (*producer, _OPSET_IMPORT) and length < _SHORT:
                    content = file.read(length)
                    if field == _OPSET_IMPORT:
                        domain, version = _operator_set(content)
                        if domain in _STANDARD:
                            opset = max(version, opset or 0)
                        else:
                            foreign.append(domain)
                    else:
                        producer[field] = content.decode("utf-8", "replace")
                else:
                    file.seek(length, 1)
            elif wire in (_FIXED64, _FIXED32):
                file.seek(8 if wire == _FIXED64 else 4, 1)
            else:
                raise ValueError(f"{path.name} is no ONNX file")
        if file.tell() != size or ir_version is None:
            raise ValueError(f"{path.name} is no ONNX file, or is cut short")
    written_by = " ".join(word for word in producer.values() if word)
    return Versions(ir_version, opset, written_by or None, tuple(sorted(foreign)))


def _operator_set(content: bytes) -> tuple[str, int]:
    """Domain and version of an OperatorSetIdProto."""
    domain, version = "", 0
    stream = io.BytesIO(content)
    while stream.tell() < len(content):
        key = _varint(stream)
        if key == _VERSION << 3 | _VARINT:
            version = _varint(stream)
        elif key == _DOMAIN << 3 | _BYTES:
            domain = stream.read(_varint(stream)).decode("utf-8", "replace")
        else:
            raise ValueError("an ONNX operator set with unknown fields")
    return domain, version


def _varint(stream: BinaryIO) -> int:
    """A protobuf integer: seven bits a byte, the lowest first, the eighth says that more follow."""
    value = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("an ONNX file that is cut short")
