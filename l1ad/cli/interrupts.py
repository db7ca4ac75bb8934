"""Ctrl-C that cannot get lost."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

#: Seconds until an interrupt that Python has dropped is raised again.
AGAIN = 0.05


@contextlib.contextmanager
def heeded_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt again that arrived where Python drops exceptions.

    What is raised in a ``__del__`` or in the callback of a weak reference goes to ``sys.unraisablehook``, which prints
    it, and the program goes on. TensorFlow frees its functions in such ones, for seconds at the end of a training.
    """
    before, main = sys.unraisablehook, threading.main_thread().ident
    timer: threading.Timer | None = None

    def hook(unraisable: sys.UnraisableHookArgs, /) -> None:
        nonlocal timer
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before(unraisable)
            return
        timer = threading.Timer(AGAIN, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        if timer is not None:
            timer.cancel()
