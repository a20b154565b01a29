"""What mkdocs does not do by itself: pages made of the code, links as GitHub has them, math."""

from __future__ import annotations

import html
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

import ziamath
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

import api  # noqa: E402
import reference  # noqa: E402

PLACES = {".docs/pages/": "", ".docs/pictures/": "pictures/", "benchmarks/results/": "benchmarks/"}
"""Folders of the repository, and where the site has them."""

_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r'(\]\(|src=")(?![a-z]+:|#)([^)#"\s]+)')
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\([(\[])(.*?)\\[)\]]\s*</\1>', re.DOTALL)
_FUNCTION = re.compile(r"(<mi>(?:log|exp)</mi>)(?=<m(?:i|sub)>)")
_CODE = re.compile(r"<(pre|a|h[1-6])\b.*?</\1>|<code>([A-Za-z_][\w.]+)</code>", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add to the navigation what is made of the code, and what was measured."""
    assert config.nav is not None
    results = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    config.nav.append({"API": api.navigation()})
    config.nav.append({"Measured": [f"benchmarks/{path.name}" for path in results]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as the first page, the API, results, pictures, and linked source files."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    for uri, content in api.pages().items():
        files.append(File.generated(config, uri, content=content))
    for folder in (".docs/pictures", "benchmarks/results"):
        for path in sorted((ROOT / folder).glob("*.*")):
            uri = _site(f"{folder}/{path.name}")
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    # For its font alone: formulas are MathML, and few systems have a font for that.
    font = Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"
    files.append(File.generated(config, f"assets/{font.name}", abs_src_path=str(font)))
    for source in sorted(_linked_sources()):
        code = (ROOT / source).read_text(encoding="utf-8")
        content = f"---\nhide: [toc]\n---\n\n# {source}\n\n````py\n{code}````\n"
        files.append(File.generated(config, _site(source), content=content))
    return files


def _linked_sources() -> set[str]:
    """Files of the repository that the README or a guide links to, and that are no pages."""
    found = set()
    for page in [ROOT / "README.md", *(HERE / "pages").rglob("*.md")]:
        here = page.relative_to(ROOT).as_posix()
        for _, target in _LINK.findall(page.read_text(encoding="utf-8")):
            path = _resolved(here, target)
            if _site(path).startswith("source/") and (ROOT / path).is_file():
                found.add(path)
    return found


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill in what is made of the code, and let links to the repository's files lead to pages."""
    uri = page.file.src_uri
    here = _repository(uri)

    def rewritten(match: re.Match[str]) -> str:
        linked = _resolved(here, match[2])
        if not (ROOT / linked).is_file():
            return match[0]  # of which mkdocs complains
        return match[1] + posixpath.relpath(_site(linked), posixpath.dirname(uri) or ".")

    if not uri.startswith(("api/", "source/")):
        parts = _FENCED.split(markdown)
        parts[::2] = [_LINK.sub(rewritten, part) for part in parts[::2]]
        markdown = "".join(parts)
    return reference.filled_in(markdown)


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Turn formulas into MathML, and names in the API's code font into links to it."""
    content = _FORMULA.sub(_mathml, content)
    known = api.names()

    def linked(match: re.Match[str]) -> str:
        identifier = known.get(match[2])
        if identifier is None:
            return match[0]
        return f'<autoref identifier="{identifier}">{match[0]}</autoref>'

    return _CODE.sub(linked, content)


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match[2] == "[" else "inline"
    mathml: str = convert(html.unescape(match[3]).strip(), display=display)
    mathml = _FUNCTION.sub(r'\1<mspace width="0.17em"/>', mathml)
    return f'<div class="formula">{mathml}</div>' if display == "block" else mathml


def _resolved(here: str, target: str) -> str:
    """The file in the repository that a link in another file of it means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), target))


def _site(path: str) -> str:
    """Where the site has a file of the repository."""
    for folder, site in PLACES.items():
        if path.startswith(folder):
            return site + path.removeprefix(folder)
    if path == "README.md":
        return "index.md"
    return f"source/{path}.md"


def _repository(uri: str) -> str:
    """Where the repository has a page of the site that is not made of the code."""
    if uri == "index.md":
        return "README.md"
    if uri.startswith("benchmarks/"):
        return "benchmarks/results/" + uri.removeprefix("benchmarks/")
    return f".docs/pages/{uri}"
