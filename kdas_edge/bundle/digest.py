"""The digest of a manifest itself, so that a changed byte of it is refused as in any other file.

It is the SHA-256 of the file's bytes with its own 64 digits as zeros. So every language can check
it without writing JSON in the same way: find the digits in the bytes, put zeros there, hash.
"""

import hashlib
from typing import Any

from kdas_edge.files import json_bytes

KEY = "sha256"
_ZEROS = "0" * 64


def sealed(values: dict[str, Any]) -> bytes:
    """Return a manifest as the bytes of a file, with its digest under `sha256`.

    Args:
        values: the manifest's keys; a digest among them is replaced.
    """
    first = {"schema_version": values["schema_version"], KEY: _ZEROS}
    others = {key: value for key, value in values.items() if key not in first}
    content = json_bytes({**first, **others}, indented=True)
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(_ZEROS.encode(), digest.encode(), 1)


def matches(content: bytes, digest: str) -> bool:
    """Whether a manifest's bytes are those that its digest was made of.

    Args:
        content: the bytes of the file.
        digest: 64 hexadecimal digits, as the manifest gives them.
    """
    own = digest.encode()
    blank = content.replace(own, _ZEROS.encode())
    return content.count(own) == 1 and hashlib.sha256(blank).hexdigest() == digest
