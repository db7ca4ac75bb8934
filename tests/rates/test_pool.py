"""Ctrl-C with worker processes: one line, nothing of the workers' own, and nobody goes on working."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from l1ad.rates.pool import process_pool

WORK = """
    import sys, time
    from pathlib import Path
    from l1ad.io import atomic_path
    from l1ad.rates.pool import process_pool

    HERE = Path(__file__).parent

    def work(i):
        with atomic_path(HERE / f"result {i}") as part:
            part.write_text("half")
            (HERE / f"begun {i}").touch()
            until = time.monotonic() + 60
            while time.monotonic() < until:
                if sys.argv[1] == "stubborn":
                    try:
                        time.sleep(60)
                    except BaseException:
                        pass

    if __name__ == "__main__":
        try:
            with process_pool(2) as pool:
                print("started", flush=True)
                list(pool.map(work, range(6)))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.exit(130)
"""


def _group(leader: int) -> list[int]:
    """Processes of a group that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("when", [0.0, 0.1, 0.15, 0.2, 0.3, "at work", "stubborn"])
def test_ctrl_c_of_a_terminal_ends_all_of_it(tmp_path: Path, when: str | float) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(WORK))

    def heed() -> None:
        # Tests that run in the background of a shell would hand down that Ctrl-C is to be ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heed, "start_new_session": True}
    with subprocess.Popen([sys.executable, str(script), str(when)], text=True, **given) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            deadline = time.monotonic() + 60
            if isinstance(when, float):
                # The workers are not yet further than their own imports.
                time.sleep(when)
            while not isinstance(when, float) and len(list(tmp_path.glob("begun *"))) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
            # Half of what a task takes.
            stdout, stderr = process.communicate(timeout=30)
            assert (process.returncode, stdout, stderr) == (130, "interrupted\n", "")
            while _group(process.pid):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            for left in _group(process.pid):
                os.kill(left, signal.SIGKILL)
    assert len(list(tmp_path.glob("begun *"))) <= 2
    assert not list(tmp_path.glob("result *"))
    if when == "at work":
        assert not list(tmp_path.glob(".*.part"))


def test_results_and_errors_of_tasks_come_back() -> None:
    with process_pool(2) as pool:
        assert pool is not None
        assert list(pool.map(abs, [-1, 2, -3])) == [1, 2, 3]
        assert pool.submit(int, "11", base=2).result() == 3
        failed = pool.submit(int, "x")
        assert isinstance(failed.exception(), ValueError)
    with pytest.raises(RuntimeError, match="cannot schedule"):
        pool.submit(abs, 1)
    with process_pool(1) as none:
        assert none is None


def test_a_worker_that_is_killed_breaks_the_pool_at_once() -> None:
    """Also with others that have nothing to do or are busy."""
    with pytest.raises(BrokenExecutor), process_pool(2) as pool:
        assert pool is not None
        # So that both workers are there: the executor may not notice the end of one that it has only just started.
        list(pool.map(time.sleep, [0.5, 0.5]))
        pool.submit(time.sleep, 60)
        pool.submit(os._exit, 1).result()


def test_an_error_here_drops_what_has_not_begun(tmp_path: Path) -> None:
    with pytest.raises(KeyError), process_pool(2) as pool:
        assert pool is not None
        for i in range(20):
            pool.submit(os.mkdir, tmp_path / str(i))
            pool.submit(time.sleep, 0.2)
        raise KeyError
    assert len(list(tmp_path.iterdir())) < 20


def test_ctrl_c_is_heard_again_after_handing_out() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with process_pool(2) as pool:
        assert pool is not None
        pool.submit(abs, 1).result()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
