"""Ctrl-C between two steps."""

from __future__ import annotations

import signal
import threading

import pytest

from agents.interrupts import interrupts


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")]
)
def test_the_first_is_noted_and_the_second_stops(
    number: signal.Signals,
    name: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [5.0]
    monkeypatch.setattr("agents.interrupts.monotonic", lambda: now[0])
    before = signal.getsignal(number)
    with interrupts() as received:
        assert not received
        signal.raise_signal(number)
        assert received == [number]
        assert capfd.readouterr().err.strip() == (
            f"Stopping after this step; {name} again to stop now."
        )
        now[0] += 0.4  # the same press, once more
        signal.raise_signal(number)
        assert received == [number]
        now[0] += 0.2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert capfd.readouterr().err == ""
    assert signal.getsignal(number) is before


def test_a_use_that_another_has_for_sigterm_is_left_to_it() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with interrupts() as received:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    assert not received


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
