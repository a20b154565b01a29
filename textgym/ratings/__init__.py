"""Ratings by people: a server with a page on which they rate, and a store of what they said.

    python -m textgym.ratings --port 8000 --store ratings.jsonl

Then train with `reward="ratings"` and open the page. `textgym.ratings.protocol` says how to put
another service in its place, `textgym.rewards.ratings` how training waits or goes on.
"""

from textgym.ratings.protocol import DEFAULT_PORT, Submission
from textgym.ratings.server import RatingServer, serve
from textgym.ratings.store import RatingStore

__all__ = ["DEFAULT_PORT", "RatingServer", "RatingStore", "Submission", "serve"]
