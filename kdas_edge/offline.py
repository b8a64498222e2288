"""Usage telemetry of the runtimes and toolkits is switched off before any of them is imported."""

import os
import sys

# Read when the library of that name is imported; ONNX Runtime's variable changed its name.
_SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "ORT_TELEMETRY_DISABLED": "1",
    "NNCF_CI": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
# OpenVINO and NNCF send their usage events through it
_TELEMETRY = "openvino_telemetry"


def switch_off_telemetry() -> None:
    """Keep this process from sending usage events; the package calls it when it is imported.

    OpenVINO and ONNX Runtime otherwise contact an analytics host when they are imported and write
    a client id into the home folder. Without the telemetry package OpenVINO uses a stub of its own.
    Where a host program imported OpenVINO first, later events (a conversion) are switched off; ONNX
    Runtime decides at its import for the whole process.
    """
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    # None makes `import openvino_telemetry` fail as if it were not installed
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]
    converter = sys.modules.get("openvino.tools.ovc.telemetry_utils")
    if converter is not None:
        from openvino.tools.ovc import telemetry_stub

        converter.tm = telemetry_stub  # type: ignore[attr-defined]
