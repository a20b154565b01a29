"""Where the links of a built site lead, and which of them lead nowhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LINKS = {("a", "href"), ("link", "href"), ("img", "src"), ("script", "src"), ("iframe", "src")}


class _Page(HTMLParser):
    """The anchors of a page, and its links by the tag that has them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember what a tag names and what it leads to."""
        for key, value in attrs:
            if value is None:
                continue
            if key == "id" or (tag, key) == ("a", "name"):
                self.anchors.add(value)
            elif (tag, key) in _LINKS:
                self.links.append((tag, value))


def check(site: Path) -> tuple[list[str], list[str]]:
    """Follow every link of a site to its file and anchor.

    Returns:
        What is wrong, a line each: a file or an anchor that is missing, or something that the
        browser would fetch from the network. And the links that lead to other sites, sorted.
    """
    pages = {
        path.resolve(): _Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }
    problems: list[str] = []
    external: set[str] = set()
    for path, page in pages.items():
        here = path.relative_to(site.resolve())
        for tag, link in page.links:
            url = urlsplit(link)
            if url.scheme in ("data", "mailto"):
                continue
            if url.scheme or url.netloc:
                if tag != "a":
                    problems.append(f"{here}: <{tag}> fetches {link}")
                external.add(link)
                continue
            root = site if url.path.startswith("/") else path.parent
            target = (root / unquote(url.path).lstrip("/")).resolve() if url.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                problems.append(f"{here}: {link} leads to no file")
            elif (
                target in pages
                and url.fragment
                and unquote(url.fragment) not in pages[target].anchors
            ):
                problems.append(f"{here}: {link} leads to no anchor")
    return problems, sorted(external)
