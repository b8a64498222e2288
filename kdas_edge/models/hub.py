"""timm's model hub, asked only where a recipe says `pretrained: true`."""

import contextlib
import threading
from collections.abc import Iterator

# a hub that has not answered by then is taken for unreachable
_SECONDS = 3.0


@contextlib.contextmanager
def hub_or_cache() -> Iterator[None]:
    """Within this block weights come from the hub, or from its local cache if it does not answer.

    Hugging Face's client otherwise retries for most of a minute where there is no network.
    """
    from huggingface_hub import constants

    was_offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = was_offline or not _answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def _answers() -> bool:
    """Whether the hub gives any answer to one request, through the proxies that are configured."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    answered = threading.Event()

    def ask() -> None:
        # two major versions of the client raise errors of two libraries
        with contextlib.suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=_SECONDS)
            answered.set()

    # a thread, because looking up a name has no time limit
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SECONDS + 0.5)
    return answered.is_set()
