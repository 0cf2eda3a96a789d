"""Where a fit can go on after it was killed: two alternating files in scratch; and SIGTERM, which waits for the next border."""

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from stages.common import log
from stages.common.errors import Interrupted
from stages.common.store import Store, Unreadable


class _Stop:
    """SIGTERM and SIGINT: raised at once, or at the next border where a fit can save itself first."""

    signal = 0
    at = 0.0
    waits = False
    held = False
    pending = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.signal and time.monotonic() - self.at < 1:
            return  # Ctrl-C reaches a walk and its step, and then the walk passes it on: one stop
        waits = self.waits and not self.signal  # a second signal does not wait
        self.signal, self.at = number, time.monotonic()
        if self.held:
            self.pending = not waits
        elif not waits:
            raise Interrupted(number)


_stop = _Stop()


@contextmanager
def held() -> Iterator[None]:
    """Let SIGTERM and SIGINT wait for the end of what must not break off.

    An exception inside a library's callback into Python breaks that library. One amid a transaction can leave it open: everybody else
    at a SQLite file then waits until this process is gone, and this process for itself.
    """
    if _stop.held or threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    _stop.held = True
    try:
        yield
    finally:
        _stop.held = False
    if _stop.pending:
        raise Interrupted(_stop.signal)


def catch_signals() -> None:
    """Turn SIGTERM and SIGINT into ``Interrupted``."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)


def end_if_told() -> None:
    """End, if a signal said so that could not be raised where it came: amid a fit that then ended otherwise, or in a destructor.

    Raises:
        Interrupted: the step was told to stop.

    """
    if _stop.signal:
        raise Interrupted(_stop.signal)


class Checkpoint:
    """The last saved border of one fit. ``with checkpoint:`` around the fit lets SIGTERM wait for its next border."""

    def __init__(self, store: Store, name: str, seconds: float) -> None:
        self.store = store
        self.name = name
        self.seconds = seconds
        self.began = 0  # rounds that were there when the fit went on from here
        self._saves = 0
        self._saved_at = time.monotonic()
        self._last: Callable[[], bytes] | None = None

    def __enter__(self) -> Self:
        _stop.waits = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _stop.waits = False
        last, self._last = self._last, None  # it leads to the model and back to us: until Python finds that, a process would hold it
        if _stop.signal and error is None:  # told to stop after the last border
            if last:
                self.save(last())
            raise Interrupted(_stop.signal)

    def load(self) -> bytes | None:
        """Give the newest state that is whole, None where there is none."""
        found = [state for key in self._keys() if (state := self._read(key))]
        if not found:
            return None
        self._saves, data = max(found)
        self._saves += 1
        return data

    def border(self, state: Callable[[], bytes]) -> None:
        """Save the state if it is time to, or if the step was told to stop; then stop.

        Raises:
            Interrupted: the step was told to stop, and the state is saved.

        """
        self._last = state
        if _stop.signal or time.monotonic() - self._saved_at >= self.seconds:
            self.save(state())
        if _stop.signal:
            raise Interrupted(_stop.signal)

    def save(self, data: bytes) -> None:
        """Write the state over the older of the two files."""
        number, began = f"{self._saves:012d}", time.monotonic()
        head = f"{number} {self._digest(number, data)}\n".encode()
        self.store.replace(self._keys()[self._saves % 2], head + data)
        self._saves += 1
        self._saved_at = time.monotonic()
        log.info("checkpoint.saved", name=self.name, bytes=len(data), seconds=round(self._saved_at - began, 3))

    def drop(self) -> None:
        """Forget the state: the fit's result is safe elsewhere."""
        for key in self._keys():
            self.store.drop(key)

    def _keys(self) -> list[str]:
        return [f"scratch/{self.name}-0", f"scratch/{self.name}-1"]

    def _read(self, key: str) -> tuple[int, bytes] | None:
        try:
            head, _, data = self.store.read(key).partition(b"\n")
        except (KeyError, Unreadable):
            return None
        number, _, sha256 = head.decode(errors="replace").partition(" ")
        return (int(number), data) if sha256 == self._digest(number, data) else None

    def _digest(self, number: str, data: bytes) -> str:
        """Name a state of this very fit: another one's, or one under another number, is none."""
        digest = hashlib.sha256(f"{self.name} {number}\n".encode())
        digest.update(data)
        return digest.hexdigest()
