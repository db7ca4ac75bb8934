"""Ctrl-C reaches the program wherever it arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import weakref

import pytest

from l1ad.cli.interrupts import heeded_interrupts


@pytest.fixture(autouse=True)
def heeded():
    """Tests in the background of a shell inherit that Ctrl-C is ignored."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)  # in which the signal's handler runs here and not in the caller


class Freed:
    def __del__(self):
        interrupt()


class Watched:
    pass


def in_a_destructor() -> None:
    Freed()


def in_the_callback_of_a_weak_reference() -> None:
    watched = Watched()
    _kept = weakref.ref(watched, interrupt)
    del watched


@pytest.mark.parametrize("where", [in_a_destructor, in_the_callback_of_a_weak_reference])
def test_an_interrupt_that_python_drops_is_raised_again(where, capsys):
    with pytest.raises(KeyboardInterrupt), heeded_interrupts():
        where()
        time.sleep(30)
    assert not capsys.readouterr().err


def test_it_is_raised_until_it_is_heard():
    """It is dropped ten times before it arrives where it is heard, and each time ends what is being waited for."""
    left, waited = 10, False
    with pytest.raises(KeyboardInterrupt), heeded_interrupts():

        class Again:
            def __del__(self):
                nonlocal left, waited
                left -= 1
                time.sleep(30)
                waited = True

        in_a_destructor()
        while left:
            Again()
        time.sleep(30)
    assert left == 0
    assert not waited


def test_what_is_not_an_interrupt_is_left_to_the_hook_before(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)

    class Wrong:
        def __del__(self):
            raise ValueError

    with heeded_interrupts():
        Wrong()
    assert [u.exc_type for u in seen] == [ValueError]
    Wrong()
    assert len(seen) == 2


def test_elsewhere_it_stops_at_once():
    with pytest.raises(KeyboardInterrupt), heeded_interrupts():
        interrupt()
        time.sleep(30)


def test_a_verb_that_is_interrupted_says_so():
    """Typer makes an exit status of the interrupt, and says nothing."""
    code = """
        import os, signal, sys, time
        from l1ad.cli import app, main
        signal.signal(signal.SIGINT, signal.default_int_handler)
        @app.command()
        def wait() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
        sys.argv = ["l1ad", "wait"]
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 130
    assert done.stderr == "l1ad: interrupted\n"
