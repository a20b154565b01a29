"""The page in a browser: a person looks at tokens with mouse, finger or keys, and sorts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from agents.reporting.page import page as html_of
from agents.reporting.run import load_runs

NASTY = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


class Page:
    """What a person sees and does."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def token(self, side: int, place: int) -> Any:
        """A token of a text, brought into view."""
        found = self.all(".written")[side].find_elements("css selector", ".token")[place]
        self.show(found)
        return found

    def show(self, element: Any) -> None:
        """Bring an element into view, at once."""
        how = "{block: 'center', behavior: 'instant'}"
        self.driver.execute_script(f"arguments[0].scrollIntoView({how})", element)

    def card(self) -> dict[str, str]:
        """What the card says, by name."""
        [card] = self.all("#card")
        assert card.is_displayed()
        names = [e.text for e in card.find_elements("css selector", "dt")]
        values = [e.text for e in card.find_elements("css selector", "dt + dd")]
        return {"token": card.find_element("css selector", "code").text} | dict(
            zip(names, values, strict=True)
        )

    def choose(self, select: str, option: str) -> None:
        Select(self.all(f"#{select}")[0]).select_by_visible_text(option)

    def until(self, holds: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, 20, 0.05).until(lambda _: holds())


@pytest.fixture
def open_page(driver: Any, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens the page of some runs; in the end no script failed, and nothing was asked for."""

    def open_page(*runs: Path, width: int = 1280, dark: bool = False) -> Page:
        path = tmp_path / "page.html"
        path.write_text(html_of(load_runs(runs)), encoding="utf-8")
        phone = width < 600
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": phone}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        for log in ("browser", "performance"):
            driver.get_log(log)
        driver.get(path.as_uri())
        page = Page(driver)
        # A busy machine may be told that a page is there before its scripts have run.
        ready = "return document.readyState == 'complete' && location.protocol == 'file:'"
        page.until(lambda: driver.execute_script(ready))
        return page

    yield open_page
    complaints = [e for e in driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [each["params"] for each in events if each["method"] == "Network.requestWillBeSent"]
    of_page = [each for each in sent if each["documentURL"].startswith("file:")]
    driver.get("about:blank")
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert not complaints
    assert [each["request"]["url"] for each in of_page] == [of_page[0]["documentURL"]]


@pytest.fixture
def texts(make_text: Any) -> Any:
    """Texts before and after for three prompts: scores before 0, 2, 1 and gains 1, -1, 4."""

    def one(score: float, prompt: str, after: bool) -> dict[str, Any]:
        return make_text(
            [" so", " sweet\n", ""],
            score,
            prompt=prompt,
            context=prompt,
            rewards=[0.0, 0.75, -0.5],
            components={"sentiment": [0.0, 1.0, 0.0], "length": [0.0, -0.25, -0.5]},
            silent={"2": "<|end|>"},
            values={"before": [0.0] * 3, "after": [0.5, -0.125, 0.25]},
            log_probs={
                "before": [math.log(0.25), math.log(0.02), 0.0],
                "after": [math.log(0.125), math.log(0.5), 0.0],
            },
        )

    prompts = ["first", "second", "third"]
    before, after = [0.0, 2.0, 1.0], [1.0, 1.0, 5.0]
    return tuple(
        [one(score, prompt, bool(i)) for score, prompt in zip(scores, prompts, strict=True)]
        for i, scores in enumerate((before, after))
    )


SWEET = {
    "token": "“ sweet⏎”",
    "reward": "+0.75",
    "sentiment": "+1",
    "length": "−0.25",  # noqa: RUF001
    "critic’s value": "0 → −0.125",  # noqa: RUF001
    "probability": "2% → 50%",
}


def test_the_mouse_shows_the_figures_of_a_token(open_page: Any, make_run: Any, texts: Any) -> None:
    page = open_page(make_run(texts=texts))
    assert not page.all("#card")[0].is_displayed()
    ActionChains(page.driver).move_to_element(page.token(1, 1)).perform()
    assert page.card() == SWEET
    assert "25 times as likely" in page.all("#card")[0].text
    ActionChains(page.driver).move_to_element(page.token(1, 0)).perform()
    assert page.card()["probability"] == "25% → 12.5%"
    assert "2 times less likely" in page.all("#card")[0].text
    ActionChains(page.driver).move_to_element(page.token(1, 2)).perform()
    assert page.card()["token"] == "<|end|>"
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    assert not page.all("#card")[0].is_displayed()


def test_keys_go_from_token_to_token(open_page: Any, make_run: Any, texts: Any) -> None:
    page = open_page(make_run(texts=texts))
    [paint] = page.all("#paint")
    paint.send_keys(Keys.TAB)
    page.until(lambda: page.all("#card")[0].is_displayed())
    assert page.card()["token"] == "“ so”"
    keys = ActionChains(page.driver)
    keys.send_keys(Keys.ARROW_RIGHT).perform()
    assert page.card() == SWEET
    keys.send_keys(Keys.END).perform()
    assert page.card()["token"] == "<|end|>"
    keys.send_keys(Keys.ARROW_RIGHT, Keys.HOME, Keys.ARROW_LEFT).perform()
    assert page.card()["token"] == "“ so”"
    assert page.all("#card")[0].get_attribute("role") == "status"


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(open_page: Any, make_run: Any, make_text: Any, texts: Any, dark: bool) -> None:
    long = [make_text(["x" * 300, " <b>"], 1.0, prompt="y" * 300)] * 2
    both = tuple([*of, *long] for of in texts)
    runs = [make_run(str(i), texts=both, seed=i, timing=t) for i, t in enumerate("ab")]
    page = open_page(*runs, width=375, dark=dark)
    measure = page.driver.execute_script
    measure("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert measure("return document.documentElement.scrollWidth") == 375
    page.token(1, 1).click()
    assert page.card() == SWEET
    card, token = page.all("#card")[0].rect, page.token(1, 1)
    assert card["x"] >= 0
    assert card["x"] + card["width"] <= 375
    token.click()
    box = measure("return arguments[0].getBoundingClientRect().bottom", token)
    top = measure("return document.getElementById('card').getBoundingClientRect().top")
    assert box <= top
    page.show(page.all("h2")[0])
    page.all("h2")[0].click()
    assert not page.all("#card")[0].is_displayed()
    for control in page.all("select, .legend button"):
        assert control.rect["height"] >= 38


def test_texts_are_sorted(open_page: Any, make_run: Any, texts: Any) -> None:
    page = open_page(make_run(texts=texts))
    assert page.texts(".prompt") == ["first", "second", "third"]
    for order, prompts in (
        ("score before training: highest first", ["second", "third", "first"]),
        ("score after training: highest first", ["third", "first", "second"]),
        ("gain: largest first", ["third", "first", "second"]),
        ("gain: smallest first", ["second", "first", "third"]),
        ("in their order", ["first", "second", "third"]),
    ):
        page.choose("sort", order)
        assert page.texts(".prompt") == prompts
    assert page.texts(".gain b") == ["+1.000", "−1.000", "+4.000"]  # noqa: RUF001


def test_tokens_have_the_colour_of_what_they_earned(
    open_page: Any, make_run: Any, texts: Any
) -> None:
    page = open_page(make_run(texts=texts))

    def backgrounds() -> list[str]:
        read = "getComputedStyle(e).backgroundColor"
        tokens = "document.querySelector('.written').querySelectorAll('.token')"
        found: list[str] = page.driver.execute_script(f"return [...{tokens}].map((e) => {read})")
        return found

    nothing, gained, lost = backgrounds()
    assert page.texts("#least, #middle, #most") == ["−0.75", "0", "+0.75"]  # noqa: RUF001
    full = page.driver.execute_script(
        "return getComputedStyle(document.documentElement).getPropertyValue('--pos')"
    )
    channels = [int(full.strip()[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    shown = [float(part) for part in gained.removeprefix("color(srgb ").rstrip(")").split()]
    assert shown == pytest.approx(channels, abs=0.01)
    assert len({nothing, gained, lost}) == 3
    page.choose("paint", "reward: sentiment")
    assert backgrounds()[2] == nothing
    page.choose("paint", "change of probability")
    assert page.texts("#least, #middle, #most") == ["×0.04", "×1", "×25"]  # noqa: RUF001
    halved, likelier, same = backgrounds()
    assert same == nothing
    assert len({halved, likelier, same}) == 3


def test_many_texts_come_when_they_are_asked_for(
    open_page: Any, make_run: Any, make_text: Any
) -> None:
    texts = [make_text([" a"], float(i), prompt=str(i)) for i in range(20)]
    page = open_page(make_run(texts=(texts, texts)))
    assert len(page.all(".episode")) == 8
    [more] = page.all("#more")
    assert more.text == "Show all 20 prompts"
    page.show(more)
    more.click()
    assert len(page.all(".episode")) == 20
    assert not more.is_displayed()


def test_texts_are_shown_and_never_run(open_page: Any, make_run: Any, make_text: Any) -> None:
    strange = [NASTY, "&amp; <b>bold</b>", "\u202eabc \u0000 \ud800 🙂"]
    texts = [make_text(strange, 1.0, prompt=NASTY, replies=[[1, NASTY]])]
    page = open_page(make_run(texts=(texts, texts), task=NASTY))
    assert page.texts(".prompt") == [NASTY]
    assert page.texts(".written .token")[:2] == strange[:2]
    assert page.texts(".written .token")[2] == "\\u202eabc \\x00 \\ud800 🙂"
    assert page.texts(".reply")[0] == f"› {NASTY}"  # noqa: RUF001
    assert page.driver.title == f"PPO on {NASTY} · textgym"
    assert page.all("main script, main img, main b b, .written b") == []


def test_curves_are_drawn_and_can_be_hidden(open_page: Any, make_run: Any) -> None:
    runs = [make_run("a"), make_run("b", seed=1), make_run("c", timing="delayed")]
    page = open_page(*runs)

    def drawn() -> Any:
        chart = "document.getElementById('chart-rollout-ep_rew_mean')"
        return page.driver.execute_script(f"return {chart}.data?.map((each) => each.y)")

    line = [0.1, 0.3, 0.5]
    page.until(lambda: drawn() == [line] * 4)  # the ends of a band and its mean; the other run
    first, second = page.all(".legend button")
    assert first.text.split("\n") == ["timing immediate", "2 runs"]
    second.click()
    page.until(lambda: drawn() == [line] * 3)
    assert second.get_attribute("aria-pressed") == "false"
    assert page.all("#chart-rollout-ep_rew_mean .js-line")


def test_all_curves_are_printed(open_page: Any, make_run: Any) -> None:
    page = open_page(make_run(), dark=True)
    count = "return document.querySelectorAll(arguments[0]).length"
    plots = page.driver.execute_script(count, ".plot")
    assert page.driver.execute_script(count, ".plot:has(.js-line)") < plots
    # What is drawn while it prints, since the page is as it was afterwards.
    page.driver.execute_script(
        "addEventListener('beforeprint', () => {"
        " const fits = ({ viewBox: { baseVal: box } }, place) =>"
        "   box.width === place.clientWidth && box.height === place.clientHeight;"
        " window.printed = [...document.querySelectorAll('.plot:has(.js-line)')]"
        "   .filter((place) => fits(place.querySelector('.main-svg'), place)).length;"
        " const curve = document.querySelector('.js-line');"
        " window.ink = getComputedStyle(curve).stroke; })"
    )
    page.driver.execute_cdp_cmd("Page.printToPDF", {})
    assert page.driver.execute_script("return window.printed") == plots
    on_screen = "return getComputedStyle(document.querySelector('.js-line')).stroke"
    light, dark = "rgb(18, 131, 107)", "rgb(69, 183, 157)"  # of the style, --series-0
    assert page.driver.execute_script("return window.ink") == light
    assert page.driver.execute_script(on_screen) == dark
    assert page.driver.execute_script(count, ".main-svg[viewBox]") == 0


def test_a_run_that_was_stopped(open_page: Any, make_run: Any) -> None:
    path = make_run()
    for name in ("result.json", "texts.json", "about.json"):
        (path / name).unlink()
    page = open_page(path)
    assert "was stopped, or still goes on" in page.all(".note")[0].text
    assert not page.all("#texts")
    page.until(lambda: page.all("#chart-objective-kl .js-line"))
