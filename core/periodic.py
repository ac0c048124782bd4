"""A thread that does something now and then, whatever happens."""

import logging
import threading
from collections.abc import Callable

from core.errors import Unavailable

log = logging.getLogger(__name__)


class Periodic:
    """Calls ``look`` every ``seconds``; a look that fails is logged, and the next one comes."""

    def __init__(self, name: str, seconds: float, look: Callable[[], None]) -> None:
        self.name = name
        self.seconds = seconds
        self.look = look
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self.seconds):
            try:
                self.look()
            except Unavailable as error:
                log.warning("the %s cannot look: %s", self.name, error.detail)
            except Exception:
                log.exception("the %s failed at a look and goes on", self.name)
