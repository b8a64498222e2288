"""Usage telemetry of the runtimes and toolkits is switched off before any of them is imported."""

import os
import sys

# NNCF and the Hugging Face hub read these when they are imported
_SWITCHES = {"NNCF_CI": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
# OpenVINO and NNCF send their usage events through it
_TELEMETRY = "openvino_telemetry"


def switch_off_telemetry() -> None:
    """Keep this process from sending usage events; the package calls it when it is imported.

    OpenVINO otherwise contacts an analytics host at `import openvino` and writes a client id into
    the home folder. Without the telemetry package it uses a stub of its own. Where a host program
    imported OpenVINO first, later events (a conversion) are switched off.
    """
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    # None makes `import openvino_telemetry` fail as if it were not installed
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]
    converter = sys.modules.get("openvino.tools.ovc.telemetry_utils")
    if converter is not None:
        from openvino.tools.ovc import telemetry_stub

        converter.tm = telemetry_stub  # type: ignore[attr-defined]
