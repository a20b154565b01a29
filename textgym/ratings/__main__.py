"""Let people rate texts: `textgym rate`, without the extras that the command needs."""

from __future__ import annotations

import argparse

from textgym.ratings.protocol import DEFAULT_PORT
from textgym.ratings.server import serve


def main(arguments: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m textgym.ratings", description=__doc__)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: %(default)s")
    parser.add_argument("--store", default="ratings.jsonl", help="default: %(default)s")
    parser.add_argument(
        "--host", default="127.0.0.1", help="default: %(default)s, this machine only; no password"
    )
    given = parser.parse_args(arguments)
    try:
        serve(given.port, given.store, given.host)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
