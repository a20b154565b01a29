"""Make the pictures of the tour in README.md, by the commands that it shows.

    python .docs/make_pictures.py

It takes a few minutes, tmux for a terminal, and Chromium to take the pictures. The tour is run in a
new directory; the pictures go to `.docs/pictures/`.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / ".docs" / "pictures"
SESSION = "textgym-tour"
COLUMNS, ROWS = 100, 22
COLORS = 128
"""Of a picture: so many make its file small, and are enough."""

PAPER, INK = (24, 24, 28), (222, 222, 222)
THEME = TerminalTheme(
    PAPER,
    INK,
    [(60, 60, 66), (200, 80, 30), (60, 170, 110), (220, 170, 60), (80, 130, 220), (170, 110, 200),
     (60, 180, 200), INK],
    [(110, 110, 118), (244, 128, 72), (90, 210, 140), (240, 200, 90), (110, 160, 250),
     (200, 140, 230), (90, 210, 230), (255, 255, 255)],
)  # fmt: skip
PAGE = """<!DOCTYPE html><meta charset="utf-8"><style>
body {{ background: {background}; color: {foreground}; margin: 14px 16px; }}
pre {{ font: 14px/1.3 "DejaVu Sans Mono", monospace; margin: 0; }}
</style><pre>{code}</pre>"""


def tour_commands(readme: str) -> list[str]:
    """The commands of the tour, in order."""
    section = readme.partition("## Five minutes\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def tour_reward(readme: str) -> str:
    """The reward of one's own that the tour shows."""
    section = readme.partition("## Five minutes\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(block)


class Terminal:
    """A terminal of fixed size, in a directory."""

    def __init__(self, directory: Path) -> None:
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        where = shlex.quote(str(directory))
        shell = f"cd {where}; PS1='$ ' COLORTERM=truecolor exec bash --norc"
        _tmux("new-session", "-d", "-s", SESSION, *size, shell)

    def type(self, line: str) -> None:
        """Type a line, on a screen that is empty."""
        _tmux("send-keys", "-t", SESSION, "clear", "Enter")
        time.sleep(1.0)
        _tmux("clear-history", "-t", SESSION)
        _tmux("send-keys", "-t", SESSION, "-l", line)
        _tmux("send-keys", "-t", SESSION, "Enter")

    def wait_for(self, pattern: str, seconds: float = 600.0) -> str:
        """What is on the screen, with its colours, once it has something that matches."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            screen = _tmux("capture-pane", "-e", "-p", "-t", SESSION)
            if re.search(pattern, Text.from_ansi(screen).plain):
                return screen
            time.sleep(0.2)
        raise TimeoutError(f"nothing matched {pattern!r} in {seconds:.0f} s")

    def close(self) -> None:
        """End it, and what runs in it."""
        _tmux("kill-session", "-t", SESSION)


def _tmux(*arguments: str) -> str:
    done = subprocess.run(["tmux", "-u", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


class Browser:
    """Chromium, which shows pages and takes pictures of them."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars"):
            options.add_argument(f"--{flag}")
        self._driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))

    def photograph(
        self, page: Path, picture: Path, width: int, height: int, click: str | None = None
    ) -> None:
        """A picture of a page at a size; of the place of an element, if one is clicked.

        Args:
            page: The file.
            picture: Where the picture goes.
            width: In the page's pixels.
            height: Likewise.
            click: What is clicked, as CSS has it; the first such element.
        """
        size = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self._driver.get(page.as_uri())
        time.sleep(1.0)  # the page takes its shape
        if click is not None:
            element = self._driver.find_element("css selector", click)
            up = "scrollBy(0, arguments[0].getBoundingClientRect().top - innerHeight / 2)"
            self._driver.execute_script(up, element)
            time.sleep(1.0)
            self._driver.execute_script("arguments[0].click()", element)
        save(Image.open(io.BytesIO(self._driver.get_screenshot_as_png())), picture)

    def photograph_terminal(self, screen: str, picture: Path) -> None:
        """A picture of what was on the terminal's screen."""
        lines = screen.rstrip().split("\n")
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        console.print(Text.from_ansi("\n".join(lines)), soft_wrap=True)
        html = console.export_html(theme=THEME, code_format=PAGE, inline_styles=True)
        with tempfile.TemporaryDirectory() as directory:
            page = Path(directory) / "terminal.html"
            page.write_text(html, encoding="utf-8")
            width, height = round(8.43 * COLUMNS) + 32, round(14 * 1.3 * len(lines)) + 28
            self.photograph(page, picture, width, height)

    def close(self) -> None:
        """End it."""
        self._driver.quit()


def save(image: Image.Image, picture: Path) -> None:
    """Save a picture, small."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    few = image.convert("RGB").quantize(
        COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    few.save(picture, optimize=True)
    print(f"{picture.relative_to(ROOT)}  {picture.stat().st_size / 1024:.0f} KB")


def main() -> None:
    """Run the tour, and take its pictures."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    train, sample, own, *_ = tour_commands(readme)
    directory = Path(tempfile.mkdtemp(prefix="textgym-tour-"))
    (directory / "my_rewards.py").write_text(tour_reward(readme))
    # So that the commands are the very ones that are shown.
    (directory / ".venv" / "bin").mkdir(parents=True)
    textgym = directory / ".venv" / "bin" / "textgym"
    textgym.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m agents.cli "$@"\n')
    textgym.chmod(0o755)
    terminal, browser = Terminal(directory), Browser()
    try:
        terminal.type(train)
        browser.photograph_terminal(terminal.wait_for(r"tokens +7\d%"), PICTURES / "live.png")
        terminal.wait_for("Judge it:")
        run = directory / "runs" / "tour"
        save(Image.open(run / "curves.png"), PICTURES / "curves.png")
        report = run / "report.html"
        browser.photograph(report, PICTURES / "report.png", 1100, 900)
        browser.photograph(
            report, PICTURES / "tokens.png", 1100, 620, click="#texts .side + .side .token.pos"
        )
        terminal.type(sample)
        browser.photograph_terminal(
            terminal.wait_for("mean score .* over"), PICTURES / "sample.png"
        )
        terminal.type(own)
        browser.photograph_terminal(terminal.wait_for(r"tokens +9\d%"), PICTURES / "own.png")
    finally:
        terminal.close()
        browser.close()
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
