"""Ratings on disk, and the texts that wait for one."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from textgym.arguments import is_payable
from textgym.ratings.protocol import Submission

_START = b'{"prompt": "'
"""What every line that a store writes begins with."""


class RatingStore:
    """Texts and their ratings: a file that only grows, and a queue in memory.

    A rating is on disk before anybody hears of it, as one line of JSON with `prompt`, `text`,
    `reference`, `rating` and `time`, and is there again after a restart. The first rating of a
    text stands. Texts that wait are not kept on disk: whoever wants their ratings asks again.
    All methods may be called from several threads. One process at a time owns a file.

    Args:
        path: The file; made with its directory if it is not there.
        max_waiting: How many texts wait at most. The oldest give way, as those of a training
            run that did not wait for them; a run that waits asks for them again.

    Raises:
        ValueError: If a line of the file is not a rating; the file is left as it is. Only the last
            may be torn, as by a power cut: it is taken away.
    """

    def __init__(self, path: str | Path, max_waiting: int = 10_000) -> None:
        self.path = Path(path)
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._waiting: dict[str, Submission] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._ratings = _read(self.path)

    def request(self, submissions: Iterable[Submission]) -> list[float | None]:
        """The rating of each text, None for one that has none yet and now waits for it."""
        with self._lock:
            return [self._request(submission) for submission in submissions]

    def next(self, most: int = 4) -> list[Submission]:
        """Texts to rate: up to `most`, the oldest and others of the same prompt.

        If no other text of that prompt waits, the oldest of any prompts.
        """
        with self._lock:
            waiting = self._waiting.values()
            oldest = next(iter(waiting), None)
            if oldest is None:
                return []
            together = list(islice((s for s in waiting if s.prompt == oldest.prompt), most))
            return together if len(together) > 1 else list(islice(waiting, most))

    def rate(self, ratings: Mapping[str, float | None]) -> int:
        """Write down ratings of texts that wait, by id; the number of them.

        None puts a text off to the end of the queue. What does not wait, because somebody else
        has rated it meanwhile, is left as it is.
        """
        with self._lock:
            rated = {
                key: (self._waiting[key], float(rating))
                for key, rating in ratings.items()
                if key in self._waiting and rating is not None
            }
            self._write(rated.values())
            for key, (_, rating) in rated.items():
                self._ratings[key] = rating
                del self._waiting[key]
            for key in [key for key in ratings if key in self._waiting]:
                self._waiting[key] = self._waiting.pop(key)
            return len(rated)

    def counts(self) -> dict[str, int]:
        """How many texts are waiting, and how many rated."""
        with self._lock:
            return {"waiting": len(self._waiting), "rated": len(self._ratings)}

    def _request(self, submission: Submission) -> float | None:
        key = submission.id
        if key not in self._ratings and key not in self._waiting:
            if len(self._waiting) >= self._max_waiting:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[key] = submission
        return self._ratings.get(key)

    def _write(self, rated: Iterable[tuple[Submission, float]]) -> None:
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        lines = [
            json.dumps({**submission._asdict(), "rating": rating, "time": time}) + "\n"
            for submission, rating in rated
        ]
        data = "".join(lines).encode("ascii")
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, size)  # half a line would spoil the next
                raise


def _read(path: Path) -> dict[str, float]:
    """The ratings of a file by id, after mending the end of its last line."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    tail = content[end:]
    torn = _is_torn(tail)
    ratings: dict[str, float] = {}
    for number, line in enumerate((content[:end] if torn else content).splitlines(), start=1):
        try:
            entry: Any = json.loads(line)
            key, rating = Submission.from_json(entry).id, entry["rating"]
        except (ValueError, KeyError, RecursionError) as error:
            raise ValueError(_not_a_rating(path, number)) from error
        if not is_payable(rating):
            raise ValueError(_not_a_rating(path, number))
        ratings.setdefault(key, float(rating))
    # Only now: until here the file may be somebody's, named by mistake.
    if torn:
        os.truncate(path, end)
    elif tail:
        with path.open("ab") as file:
            file.write(b"\n")
    return ratings


def _is_torn(tail: bytes) -> bool:
    """Whether what follows the last newline is the beginning of a line that a store wrote."""
    if not tail or tail[: len(_START)] != _START[: len(tail)]:
        return False
    try:
        json.loads(tail)
    except ValueError:
        return True
    return False


def _not_a_rating(path: Path, number: int) -> str:
    return (
        f"line {number} of {path} is not a rating; expected JSON with 'prompt', 'text' and the "
        "number 'rating'. Mend or remove the line, or name another file."
    )
