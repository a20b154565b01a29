"""Joining a Ray, and what is said where there is none."""

from __future__ import annotations

import re
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ray
from ray.exceptions import OutOfMemoryError

from agents import ray_cluster
from agents.cli import main
from agents.ray_cluster import (
    ClusterGone,
    _check_answers,
    _parsed,
    check_alive,
    check_machines,
    connected,
    described,
    sizes,
)
from textgym.extras import MissingExtra


def test_a_ray_that_is_there_is_left_alone(local_ray: str) -> None:
    with connected("nobody.invalid:6379"):
        assert ray.get_runtime_context().gcs_address == local_ray
    assert ray.is_initialized()


def test_sigterm_is_left_to_those_who_save(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def init(**options: object) -> None:  # does what Ray's own does
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    try:
        with connected():
            assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_ray_that_answers_is_one(local_ray: str) -> None:
    _check_answers(local_ray)


def test_which_ray_it_is_is_said(local_ray: str) -> None:
    assert re.fullmatch(rf"Ray at {local_ray}, 2 CPUs, \d GPUs?", described("auto"))
    assert sizes(1, 1.0) == ["1 CPU", "1 GPU"]


def test_a_ray_that_is_gone_is_named(local_ray: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_alive("auto")
    monkeypatch.setattr(ray_cluster, "_SILENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = f"ray://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ClusterGone, match=f"the cluster at {gone} is gone"):
        check_alive(gone)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_that_does_not_answer_is_said_at_once(form: str) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        address = form.format(server.server_port)
        asked = threading.Thread(target=server.handle_request)
        asked.start()
        with pytest.raises(ConnectionError, match=f"what answers at {address} is no Ray"):
            _check_answers(address)
        asked.join()
    with pytest.raises(ConnectionError, match=f"nothing answers at {address}"):
        _check_answers(address)


@pytest.mark.parametrize(
    "address",
    [
        "nobody",
        "",
        "host:",
        "host:port",
        "host:0",
        "host:65536",
        "http://host:8265",
        "ray://",
        "::1",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    expected = f"{address!r} is no address of a Ray; expected 'auto', 'HOST:6379' or"
    with pytest.raises(ValueError, match=expected):
        _check_answers(address)


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("host:6379", ("host", 6379)),
        ("[::1]:6379", ("::1", 6379)),
        ("ray://host", ("host", 10001)),
        ("ray://host:1234/space", ("host", 1234)),
    ],
)
def test_addresses(address: str, where: tuple[str, int]) -> None:
    assert _parsed(address) == where


def test_a_wrong_address_of_a_sweep_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # by another test
    sweep = str(tmp_path / "sweep")
    assert main(["tune", "--search", "gamma=0.9,1", "--address", "nobody", "--output", sweep]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("textgym tune: 'nobody' is no address of a Ray; expected 'auto'")
    assert not (tmp_path / "sweep").exists()


def test_a_machine_that_lacks_a_package_is_named(local_ray: str) -> None:
    check_machines()
    with pytest.raises(OSError, match="a machine of this Ray, has no no_such_package"):
        check_machines(("textgym", "no_such_package"))


def test_a_machine_that_cannot_be_asked_is_named(
    local_ray: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(answer: object) -> None:
        raise OutOfMemoryError("ten lines of Ray")

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(OSError, match=r"does not say whether .* \(OutOfMemoryError\)\. Try again"):
        check_machines()


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingExtra, match=r"textgym tune needs ray.*'textgym\[ray\]'"),
        connected(wanted_by="textgym tune"),
    ):
        pass
