"""Ratings by people: a server with a page on which they rate, and a store of what they said.

    textgym rate --port 8000 --store ratings.jsonl
    textgym train --reward ratings --timing delayed

The first serves the page (`python -m textgym.ratings` does so too and needs no extras), the second
trains: `reward="ratings", timing="delayed"` in Python. Without `timing="delayed"` a text is sent
to the raters again at every token. `textgym.ratings.protocol` says how to put another service in
the page's place, `textgym.rewards.ratings` how training waits or goes on.
"""

from textgym.ratings.protocol import DEFAULT_PORT, Submission
from textgym.ratings.server import RatingServer, serve
from textgym.ratings.store import RatingStore

__all__ = ["DEFAULT_PORT", "RatingServer", "RatingStore", "Submission", "serve"]
