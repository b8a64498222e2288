"""The result of an inference that runs in the background."""

import contextlib
import threading
from collections.abc import Callable

from kdas_edge.errors import UserError
from kdas_edge.runtime.failures import TargetError
from kdas_edge.runtime.result import Result


class InferFuture:
    """The result of a frame that is still inferred; `result` waits for it."""

    def __init__(
        self, finish: Callable[[], Result], again: Callable[[TargetError], Result]
    ) -> None:
        self._finish: Callable[[], Result] | None = finish
        self._again = again
        self._result: Result | None = None
        self._lock = threading.Lock()

    def result(self) -> Result:
        """Wait for the result; the same one each time.

        Raises:
            TargetError: the device failed and there is no other target.
        """
        with self._lock:
            if self._result is None:
                finish, self._finish = self._finish, None
                if finish is None:
                    raise UserError("this frame failed before; submit it again")
                try:
                    self._result = finish()
                except TargetError as error:
                    self._result = self._again(error)
            return self._result

    def __del__(self) -> None:
        # the device may still read the frame: wait before its memory is freed
        if self._finish is not None:
            with contextlib.suppress(Exception):
                self._finish()
