"""Builds the documentation into build/docs: warnings are errors, and so is a link to nothing.

    .venv/bin/python .docs/build.py

Open build/docs/index.html; no server is needed, and nothing is fetched from the network.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from links import check
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

HERE = Path(__file__).parent


def main() -> int:
    """Build and check; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    config = load_config(str(HERE / "mkdocs.yml"))
    config.plugins.on_startup(command="build", dirty=False)
    try:
        build(config)
    except Abort as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        config.plugins.on_shutdown()
    site = Path(config.site_dir)
    problems, external = check(site)
    for problem in problems:
        print(problem, file=sys.stderr)
    (site / "external_links.txt").write_text("".join(f"{link}\n" for link in external))
    print(f"{len(list(site.rglob('*.html')))} pages in {site}; {len(problems)} broken links.")
    print(f"{len(external)} links lead elsewhere, unfetched: {site / 'external_links.txt'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
