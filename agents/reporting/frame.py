"""What all pages are made with: one file each, which loads nothing and trusts no text.

Prompts and texts are a model's and a stranger's, so nobody knows what is in them. Jinja escapes
what it puts on the page, scripts put texts there as text and never as HTML, and the policy lets no
other script run and nothing be loaded, should either fail.

Charts are drawn by plotly.js. Its Python package has the whole bundle only, 4.8 MB a page.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from textgym.rendering.transcript import rounded


def signed(number: float) -> str:
    """A score or a gain, with its sign."""
    return rounded(number, "+.3f").replace("-", "−")  # noqa: RUF001  # a minus as wide as the plus


def _asset(name: str) -> str:
    return (files("agents.reporting") / "assets" / name).read_text(encoding="utf-8")


ENVIRONMENT = Environment(
    loader=FunctionLoader(_asset),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters["signed"] = signed


def framed(name: str, scripts: Sequence[str], data: Mapping[str, Any], **values: Any) -> str:
    """A page, as HTML.

    Args:
        name: File of its template, which extends `frame.html`.
        scripts: Files of its scripts.
        data: What they draw, JSON-able; with `charts` plotly.js comes before them.
        values: What the template shows.
    """
    sources = [_asset(script) for script in scripts]
    if data["charts"]:
        plotly = files("plotly") / "package_data" / "plotly.min.js"
        sources.insert(0, plotly.read_text(encoding="utf-8"))
    return ENVIRONMENT.get_template(name).render(
        style=Markup(_asset("style.css")),
        data=_embedded(data),
        scripts=[Markup(source) for source in sources],
        policy=_policy(sources),
        **values,
    )


def _embedded(data: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it ends or begins one."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


def _policy(scripts: Sequence[str]) -> str:
    """What a page with these scripts lets a browser do: run them, and nothing else."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
