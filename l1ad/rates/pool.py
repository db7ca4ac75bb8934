"""Worker processes that Ctrl-C does not reach: the main process alone hears it, and ends them.

`process_pool` makes them. A terminal sends Ctrl-C to every process of its group; workers that heard it would each print
a traceback, and those that were told by the main process to stop would finish the training that they are at first.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import connection
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that a worker has to clean up after itself when it is to end at once.
GRACE = 2.0
#: The order to end the task, if there is one, and begin no other. SIGTERM, by which the executor ends all others when
#: one has gone, ends a worker between tasks too, where half of a result may be on its way.
_END = signal.SIGUSR1


class _Ended(BaseException):
    """Raised in a task that is to end at once, so that it removes what it has half written."""


class _Worker:
    """What a worker process knows of itself."""

    busy = False
    ended = False


def _begin() -> None:
    """Ignore Ctrl-C, and turn the order to end into an exception."""

    def end(number: int, _: object) -> None:
        again, _Worker.ended = _Worker.ended, True
        if _Worker.busy:
            # The executor terminates all others as soon as one has gone: that must not disturb the cleaning up.
            if not again:
                raise _Ended
        elif number == signal.SIGTERM:
            os._exit(1)

    for number in (_END, signal.SIGTERM):
        signal.signal(number, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blocked since before the worker was started.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _run(task: Callable[..., T], arguments: tuple[Any, ...], named: dict[str, Any]) -> T:
    """A task in a worker."""
    if _Worker.ended:
        os._exit(1)
    _Worker.busy = True
    try:
        return task(*arguments, **named)
    except _Ended:
        # As a result it would be sent back, and the worker would go on with the next task.
        os._exit(1)
    finally:
        _Worker.busy = False


class _Pool(ProcessPoolExecutor):
    """Processes that are spawned and not forked: a fork copies the locks of whatever was imported before."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand out a task; a worker that is started for it inherits that Ctrl-C is blocked, until it ignores it."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(_run, fn, args, kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end(self) -> None:
        """End the workers at once, whatever they are doing."""
        # Waited for without waitpid, which the executor's own thread may be calling.
        left = {worker.sentinel: worker for worker in (self._processes or {}).values()}
        manager: Any = self._executor_manager_thread
        try:
            self.shutdown(wait=False, cancel_futures=True)
            for worker in left.values():
                if worker.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.pid, _END)
            until = time.monotonic() + GRACE
            while left and (seconds := until - time.monotonic()) > 0:
                gone = connection.wait(list(left), seconds)
                left = {sentinel: worker for sentinel, worker in left.items() if sentinel not in gone}
        finally:
            for worker in left.values():
                worker.kill()
            # While it closes its pipes the interpreter must not end, which writes to them.
            if manager is not None:
                manager.join(GRACE)


@contextlib.contextmanager
def process_pool(workers: int) -> Iterator[Executor | None]:
    """`workers` processes of this machine; None (work here) for one.

    When the block ends with an error, tasks that have not begun are dropped. When it ends with Ctrl-C, those that have
    begun end as well, within `GRACE` seconds, in which they can remove what they have half written.
    """
    if workers == 1:
        yield None
        return
    pool = _Pool(workers)
    try:
        try:
            yield pool
        except Exception:
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()
    except BaseException as error:
        if not isinstance(error, Exception):
            pool.end()
        raise
