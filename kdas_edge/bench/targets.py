"""The targets of a benchmark: as written, or everything that this machine has."""

from collections.abc import Sequence

from kdas_edge.bundle.reader import Bundle
from kdas_edge.errors import UserError
from kdas_edge.runtime.backends import FORMATS, present_targets
from kdas_edge.runtime.targets import AUTO, Target, parse_targets


def choose_targets(text: str, bundles: Sequence[Bundle]) -> list[Target]:
    """Read `--targets`.

    Args:
        text: targets with commas between, or `auto`: every device of every runtime for which one
            of the models has a file, in the order of `doctor`.
        bundles: the models.

    Raises:
        UserError: an unknown runtime, device or option (the nearest is suggested), or no device.
    """
    if text.strip() != AUTO:
        return parse_targets(text)
    formats = {model.format for bundle in bundles for model in bundle.manifest.models}
    # to look for devices of a runtime without a file would import it for nothing, torch's seconds
    runtimes = [runtime for runtime, format_ in FORMATS.items() if format_ in formats]
    found = present_targets(runtimes)
    if not found:
        raise UserError(
            f"--targets auto: no runtime for these models ({', '.join(sorted(formats))}) is "
            "installed; see kdas-edge doctor"
        )
    return found
