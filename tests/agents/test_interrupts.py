"""Ctrl-C between two steps."""

from __future__ import annotations

import signal
import threading

import pytest

from agents.interrupts import interrupts


def test_the_first_is_noted_and_the_second_stops(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [5.0]
    monkeypatch.setattr("agents.interrupts.monotonic", lambda: now[0])
    before = signal.getsignal(signal.SIGINT)
    with interrupts() as received:
        assert not received
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGINT]
        assert capfd.readouterr().err.strip() == (
            "Stopping after this step; Ctrl-C again to stop now."
        )
        now[0] += 0.4  # the same press, once more
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGINT]
        now[0] += 0.2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is before


def test_the_handler_is_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="full"), interrupts():
        raise OSError("the disk is full")
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_gets_none() -> None:
    before, noted = signal.getsignal(signal.SIGINT), []

    def step() -> None:
        with interrupts() as received:
            noted.append((list(received), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert noted == [([], before)]
