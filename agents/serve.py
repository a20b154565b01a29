"""A reward for training runs on other machines: `textgym serve`."""

from __future__ import annotations

import json
import os
import shlex
import socket
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from agents.specs import Spec
from textgym import rewards
from textgym.arguments import as_count
from textgym.http.client import is_loopback
from textgym.rewards.serving import HEALTH_PATH, ScoreServer
from textgym.rewards.wire import DEFAULT_PORT, SCORE_PATH
from textgym.shell import program


@dataclass(frozen=True)
class ServeConfig:
    """Score texts for training runs elsewhere, until Ctrl-C."""

    reward: Spec = "sentiment"
    """What scores: as for `textgym train`, as long as it scores texts and does not pay tokens as
    they come."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 for all that this machine has."""
    port: int = DEFAULT_PORT
    """The port; 0 for any that is free."""
    workers: int = 1
    """Batches that are scored at a time; more than one for a reward that is thread-safe and
    waits for something."""
    token: str | None = None
    """Name of an environment variable with a token that requests must bear."""


def serve(config: ServeConfig, console: Console | None = None) -> None:
    """Serve as the config says, until Ctrl-C.

    Raises:
        OSError: If the port is taken, or the address unknown.
        ValueError: If a setting is refused.
        TypeError: If the reward is no score of a text.
    """
    console = console or Console()
    workers = as_count("workers", config.workers)
    token = None if config.token is None else os.environ.get(config.token, "")
    if token == "":
        raise ValueError(f"token: the environment variable {config.token!r} is not set.")
    score = rewards.make_score(config.reward)
    name = config.reward if isinstance(config.reward, str) else json.dumps(config.reward)
    server = ScoreServer(score, name, config.port, config.host, workers=workers, token=token)
    with server:
        client: dict[str, Any] = {"name": "http", "url": _reachable(server) + SCORE_PATH}
        if not getattr(score, "text_only", False):
            client["token_ids"] = True
        if (threshold := getattr(score, "success_threshold", None)) is not None:
            client["success_threshold"] = threshold
        if workers > 1:
            client["max_calls"] = workers
        if config.token is not None:
            client["headers"] = {"Authorization": f"Bearer ${config.token}"}
        command = f"{program()} train --reward {shlex.quote(json.dumps(client))}"
        for line in (
            f"Reward {name} is served at {server.url}{SCORE_PATH}, and its state at {HEALTH_PATH}.",
            f"Train with: {command}",
        ):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if is_loopback(config.host):
            console.print("Only this machine reaches it; --host 0.0.0.0 is for others.")
        elif token is None:
            console.print(
                f"No token: whoever reaches {config.host} can have texts scored.",
                style="yellow",
                soft_wrap=True,
            )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print(f"\n{server.texts} texts scored in {server.calls} calls.")


def _reachable(server: ScoreServer) -> str:
    """The address by which others reach a server; its machine's name if it listens on all."""
    host, port = server.server_address[:2]
    return f"http://{socket.gethostname()}:{port}" if host in _ALL else server.url


_ALL = ("0.0.0.0", "::")
