"""What a training run and its raters say to each other over HTTP.

A run sends texts to one URL and gets a rating of each. Any service that answers like this can be
the rater, and `textgym.ratings.server` is one where people rate:

    POST /rate                                      Content-Type: application/json
    {"samples": [{"id": "5f0c…", "prompt": "…", "text": "…", "reference": null}, …]}

    200   {"ratings": [0.5, -1, …]}                 one number a sample, in the same order
    202   {"ratings": [0.5, null, …]}               null: not rated yet

To ask again is to send the same samples again. Nothing else names a request, so both sides may be
restarted in between, and a service keeps ratings by what was rated: `id` is a digest of prompt,
text and reference, the same in every run. With status 200, `null` means that the service will
not rate that text. Statuses 408, 425, 429 and from 500 on say "try again"; any other says that the
request is wrong, and why in its body.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

DEFAULT_PORT = 8000

RATE_PATH = "/rate"

DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}{RATE_PATH}"
"""Where `textgym rate` takes texts unless told otherwise."""

LARGEST_REQUEST = 8 << 20
"""Bytes of a request's body that the server of this package takes."""


class ProtocolError(ValueError):
    """A request is not of the form that it should have; the message is for its sender."""


class Submission(NamedTuple):
    """A text that wants a rating.

    Attributes:
        prompt: What the text was written for.
        text: The text.
        reference: The task's reference text, if it has one.
    """

    prompt: str
    text: str
    reference: str | None = None

    @property
    def id(self) -> str:
        """A digest of all three, 32 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self).encode("ascii")).hexdigest()[:32]

    def to_json(self) -> dict[str, str | None]:
        """As it is sent."""
        return {"id": self.id, **self._asdict()}

    @classmethod
    def from_json(cls, value: Any) -> Submission:
        """Read what was sent; its id is not believed but made again.

        Raises:
            ProtocolError: If it is not of that form.
        """
        fields = value if isinstance(value, dict) else {}
        prompt, text, reference = map(fields.get, cls._fields)
        if not (isinstance(prompt, str) and isinstance(text, str)):
            raise ProtocolError(
                "a sample is an object with the strings 'prompt' and 'text', and optionally "
                f"'reference'; got {json.dumps(value)[:200]}."
            )
        if reference is not None and not isinstance(reference, str):
            raise ProtocolError(f"a reference is a string or null, got {reference!r:.200}.")
        return cls(prompt, text, reference)
