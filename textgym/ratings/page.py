"""The page on which people rate: one document that loads nothing else.

The texts that it shows are a model's, so nobody knows what is in them. The script puts them on
the page as text, never as HTML, and the policy lets no other script or style run, should it fail.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from string import Template


def _asset(name: str) -> str:
    return (files("textgym.assets") / "rating_page" / name).read_text(encoding="utf-8")


def _digest(inline: str) -> str:
    return base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()


_STYLE = _asset("style.css")
_SCRIPT = _asset("script.js")

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src 'sha256-{_digest(_SCRIPT)}'",
        f"style-src 'sha256-{_digest(_STYLE)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The header that goes with every answer: this script, this style, this server, nothing else."""

PAGE = Template(_asset("page.html")).substitute(style=_STYLE, script=_SCRIPT)
