"""Joining a Ray, and what is said where there is none."""

from __future__ import annotations

import socket
import sys

import pytest
import ray

from agents.ray_cluster import _check_answers, check_machines, connected
from textgym.extras import MissingExtra


def test_a_ray_that_is_there_is_left_alone(local_ray: str) -> None:
    with connected("nobody.invalid:6379"):
        assert ray.get_runtime_context().gcs_address == local_ray
    assert ray.is_initialized()


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_that_does_not_answer_is_said_at_once(form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = form.format(server.getsockname()[1])
        _check_answers(address)
    with pytest.raises(ConnectionError, match=f"nothing answers at {address}"):
        _check_answers(address)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'nobody' is no address of a Ray; expected 'auto'"):
        _check_answers("nobody")


def test_a_machine_that_lacks_a_package_is_named(local_ray: str) -> None:
    check_machines()
    with pytest.raises(OSError, match="a machine of this Ray, has no no_such_package"):
        check_machines(("textgym", "no_such_package"))


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingExtra, match=r"textgym tune needs ray.*'textgym\[ray\]'"),
        connected(wanted_by="textgym tune"),
    ):
        pass
