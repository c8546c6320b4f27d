"""Other people's code at work inside ours: what it raises does not leave, and what is slow is named."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

__all__ = ["Guarded"]

SLOW = 0.5  # seconds after which what is done at last is warned of
STUCK = 5.0  # seconds after which what is not done yet is told on stderr


class Guarded:
    """A ``with`` block that runs a plugin's code, times it, and keeps what it raises in :attr:`error`.

    Anything but ``KeyboardInterrupt`` is kept, ``SystemExit`` included; Ctrl-C is the user's and goes on, with a note
    that names the plugin. While the block takes longer than :data:`STUCK`, a line on stderr says so: it comes from
    another thread, so code that hangs without releasing Python's lock hangs silently.

    Args:
        what: what is being done, with the plugin's name: ``"loading the plugin 'a' of b"``.
        hint: how to do without it.
        watch: False for our own code, which is trusted and must cost nothing: no thread is started.

    Attributes:
        error: what the block raised, as ``"Type: message"``, or None.
        exception: the same as an object.
        seconds: how long the block took.

    Example:
        >>> with Guarded("loading the plugin 'a' of b") as work:
        ...     raise SystemExit(3)
        >>> work.error
        'SystemExit: 3'
    """

    def __init__(self, what: str, hint: str = "", watch: bool = True) -> None:
        self.what, self.hint, self.watch = what, hint, watch
        self.exception: BaseException | None = None
        self.seconds = 0.0

    @property
    def error(self) -> str | None:
        return None if self.exception is None else f"{type(self.exception).__name__}: {self.exception}"

    @property
    def slow(self) -> str | None:
        """A sentence about a block that took long, or None."""
        if not self.watch or self.seconds < SLOW:
            return None
        return f"{self.what} took {self.seconds:.1f} s{f'; {self.hint}' if self.hint else ''}"

    def __enter__(self) -> Guarded:
        self._begin = time.perf_counter()
        self._timer = None
        if self.watch:
            self._timer = threading.Timer(STUCK, self._say)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.seconds = time.perf_counter() - self._begin
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()  # a thread that is left would make os.fork() in the user's program complain
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"while {self.what}{f' ({self.hint})' if self.hint else ''}")
            return False
        self.exception = error
        return True

    def _say(self) -> None:
        if sys.stderr is not None:
            hint = f"; {self.hint}" if self.hint else ""
            print(f"snn_dendrite_plugin: still {self.what} after {STUCK:g} s{hint}", file=sys.stderr, flush=True)
