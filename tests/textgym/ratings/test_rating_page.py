"""The page in a browser: a person reads, rates with mouse, finger or keys, and sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from textgym.ratings import RatingServer, Submission

WAIT = 10

NASTY = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


class Page:
    """What a person sees and does."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def texts(self) -> list[str]:
        """The texts on the page, read at one moment."""
        written = "[...document.querySelectorAll('article > .written')]"
        found: list[str] = self.driver.execute_script(
            f"return {written}.map((each) => each.textContent)"
        )
        return found

    def rate(self, index: int, rating: int) -> None:
        """Bring a text's scale into view and press a button of it."""
        button = self.all(".scale")[index].find_elements("css selector", "button")[rating - 1]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, holds: Callable[[], Any]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, WAIT, 0.02).until(lambda _: holds())


@pytest.fixture
def page(driver: Any, server: RatingServer) -> Iterator[Callable[..., Page]]:
    """Opens the page on which these texts wait; scripts must not have failed in the end."""

    def open_page(*submissions: Submission, width: int = 1280, height: int = 900) -> Page:
        server.store.request(submissions)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(f"{server.url}/")
        page = Page(driver)
        page.until(lambda: page.one("#counts").text)
        return page

    yield open_page
    errors = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    driver.get("about:blank")  # or it would go on asking a server that is gone
    assert not errors


def group(*texts: str, prompt: str = "Once upon a time") -> list[Submission]:
    return [Submission(prompt, text) for text in texts]


def test_person_rates_two_texts_by_mouse_and_gets_the_next(
    page: Callable[..., Page], server: RatingServer
) -> None:
    texts = group(" there was a king.", " no no no no")
    other = Submission("Another prompt", " and its text", reference="a reference")
    open_page = page(*texts, other)
    assert open_page.texts() == ["there was a king.", "no no no no"]
    assert open_page.one("#prompt .written").text == "Once upon a time"
    assert open_page.one("#counts").text == "3 waiting · 0 rated"
    send = open_page.one("#send")
    assert not send.is_enabled()
    open_page.rate(0, 5)
    assert send.text == "Send 1 of 2"
    open_page.rate(1, 2)
    pressed = open_page.all("[aria-pressed=true]")
    assert [button.text for button in pressed] == ["5", "2"]
    send.click()
    open_page.until(lambda: open_page.texts() == ["and its text"])
    assert server.store.request(texts) == [1.0, -0.5]
    assert open_page.one("#status").text == "Saved 2."
    assert open_page.one("#counts").text == "1 waiting · 2 rated"
    assert open_page.one("#prompt .written").text == "Another prompt"
    assert not open_page.one("details .written").is_displayed()
    open_page.one("summary").click()
    assert open_page.one("details .written").text == "a reference"


def test_person_rates_by_keys(page: Callable[..., Page], server: RatingServer) -> None:
    from selenium.webdriver.common.keys import Keys

    texts = group("a", "b", "c")
    open_page = page(*texts)
    open_page.press("5", "3", Keys.ARROW_LEFT, Keys.ARROW_LEFT, "4", Keys.ENTER)
    open_page.until(lambda: open_page.texts() == ["c"])
    assert server.store.request(texts) == [0.5, 0.0, None]
    open_page.press("1", Keys.ENTER)
    open_page.until(lambda: open_page.one("#idle").is_displayed())
    assert server.store.request(texts) == [0.5, 0.0, -1.0]
    assert open_page.driver.title == "Rate texts"


def test_rating_can_be_taken_back_and_texts_put_off(
    page: Callable[..., Page], server: RatingServer
) -> None:
    first, second = Submission("one", "a"), Submission("two", "b")
    open_page = page(first, second)
    assert [e.text for e in open_page.all("article .prompt .written")] == ["one", "two"]
    open_page.rate(0, 1)
    open_page.rate(0, 1)
    assert not open_page.one("#send").is_enabled()
    open_page.rate(1, 3)
    open_page.one("#skip").click()
    open_page.until(lambda: open_page.texts() == ["a"])
    assert server.store.request([first, second]) == [None, 0.0]


def test_texts_are_shown_and_never_run(page: Callable[..., Page]) -> None:
    strange = [NASTY, "&amp; <b>bold</b>\n\n  two lines", "", " \n", "\u202eabc \u0000 \ud800 🙂"]
    open_page = page(*group(*strange[:4], prompt=NASTY), *group(strange[4], prompt="odd"))
    assert open_page.one("#prompt .written").text == NASTY
    assert open_page.texts() == [
        *strange[:2],
        "(an empty text)",
        "(nothing but white space)",
    ]
    assert open_page.driver.title == "(5) Rate texts"
    assert open_page.all("main script, main img, main b") == []


def test_another_script_would_not_run(driver: Any, server: RatingServer) -> None:
    driver.get(f"{server.url}/")
    driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'document.title = \"taken\"';"
        "document.body.append(s);"
    )
    assert driver.title != "taken"
    [blocked] = [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    assert "Content Security Policy" in blocked["message"]
    driver.get("about:blank")


def test_new_texts_appear_by_themselves(page: Callable[..., Page], server: RatingServer) -> None:
    open_page = page()
    assert open_page.one("#idle").is_displayed()
    server.store.request(group("a"))
    open_page.until(lambda: open_page.texts() == ["a"])


def test_ratings_that_cannot_be_saved_stay(
    page: Callable[..., Page], server: RatingServer, driver: Any
) -> None:
    texts = group("a", "b")
    open_page = page(*texts)
    path, server.store.path = server.store.path, Path("/nowhere/ratings.jsonl")
    open_page.press("5", "1")
    open_page.one("#send").click()
    open_page.until(lambda: "Not saved" in open_page.one("#status").text)
    [told] = [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    assert "500" in told["message"]
    server.store.path = path
    open_page.one("#send").click()
    open_page.until(lambda: open_page.one("#idle").is_displayed())
    assert server.store.request(texts) == [1.0, -1.0]


def test_text_that_somebody_else_rated_meanwhile_keeps_their_rating(
    page: Callable[..., Page], server: RatingServer
) -> None:
    texts = group("a", "b")
    open_page = page(*texts)
    server.store.rate({texts[0].id: -1.0})
    open_page.press("5", "5")
    open_page.one("#send").click()
    open_page.until(
        lambda: "no longer waited" in open_page.one("#status").get_property("innerHTML")
    )
    assert server.store.request(texts) == [-1.0, 1.0]


@pytest.mark.parametrize("width", [390, 320])
def test_fits_a_phone(page: Callable[..., Page], server: RatingServer, width: int) -> None:
    texts = group(" there was a king " * 12, "x" * 300, NASTY)
    open_page = page(*texts, width=width, height=800)
    measure = open_page.driver.execute_script
    assert measure("return document.documentElement.scrollWidth") == width
    for button in open_page.all("button"):
        box = button.rect
        assert box["width"] >= 40
        assert box["height"] >= 44
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    for index in range(3):
        open_page.rate(index, 4)
    open_page.one("#send").click()
    open_page.until(lambda: open_page.one("#idle").is_displayed())
    assert server.store.request(texts) == [0.5, 0.5, 0.5]
