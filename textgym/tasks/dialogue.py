"""Small talk in many languages: the conversations of the package chatterbot-corpus."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from textgym.extras import require
from textgym.messages import Message
from textgym.registry import did_you_mean
from textgym.tasks.base import Example, Task
from textgym.tasks.splitting import check_fractions, content_key, hold_out

if TYPE_CHECKING:
    from textgym.completion import Sample

_require = partial(require, extra="dialogue", wanted_by="task 'dialogue'")

_IN_TURNS = frozenset({"conversations", "games", "health"})
"""Categories whose further lines answer each other; elsewhere they are other replies."""


def dialogue(
    language: str = "english",
    categories: Collection[str] | None = None,
    *,
    max_turns: int | None = 5,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Task:
    r"""Reply to a line of small talk in one of 28 languages, or to a whole conversation.

        textgym train --task dialogue
        textgym train --task dialogue:chinese
        gym.make("TextGen-v0", task={"name": "dialogue", "categories": ["greetings", "ai"]})

    **Prompts.** The lines of a conversation so far. A chat model gets them as messages in which
    user and assistant take turns; for a model without a chat template each line ends with "\n",
    as in `"How are you doing?\n"`, and the reply goes on the next line. The category
    "conversations" (and "games" and "health", where a language has them) has conversations of
    several turns, of which every second line is the assistant's and makes an example. In the other
    categories further lines are other replies to the first line.

    **References.** The reply that a person wrote; where there are several, the first. The column
    `replies` holds all of them, those to the same lines in other spelling included, and the
    column `category` the category. A prompt is one example, however many replies it has.

    **Splits.** A tenth of the conversations is held out for validation and a tenth for tests, by
    content. Conversations whose first lines differ only in case, punctuation and spacing stay
    together. Paraphrases do not: "stock market" may be trained on and "what is the stock market"
    tested, which have the same reply. Of 67 tests in English that is so for 3, of 37 in Chinese
    for 5, of 79 in Persian for 49. Prompts in train, validation and test, with version 1.3.3 of
    the package:

    | Language   | train | val. | test | Language           | train | val. | test |
    |------------|------:|-----:|-----:|--------------------|------:|-----:|-----:|
    | bengali    |    83 |   10 |   10 | marathi            |    22 |    4 |    4 |
    | chinese    |   307 |   38 |   37 | oriya              |    20 |    3 |    3 |
    | dutch      |   242 |   29 |   31 | persian            |   610 |   75 |   79 |
    | english    |   540 |   65 |   67 | portuguese         |   257 |   32 |   32 |
    | french     |    58 |    7 |    7 | russian            |    36 |    4 |    5 |
    | german     |    63 |    9 |    9 | spanish            |   211 |   25 |   25 |
    | hebrew     |    36 |    4 |    3 | swedish            |    43 |    4 |    7 |
    | hindi      |    13 |    1 |    1 | tamil              |    13 |    1 |    1 |
    | hinglish   |    11 |    2 |    2 | traditionalchinese |   298 |   38 |   37 |
    | indonesian |    95 |   10 |   12 | turkish            |    80 |    8 |   10 |
    | italian    |   323 |   43 |   42 | ukrainian          |   320 |   40 |   39 |
    | japanese   |   331 |   40 |   41 | yoruba             |    23 |    2 |    3 |
    | korean     |   296 |   37 |   36 | telugu, thai, urdu |   2-4 |    1 |    1 |

    **Reward.** `chrf` with its defaults, of sacreBLEU: characters in common with the reference, in
    runs of one to six. Nearly every token changes it, so that credit is immediate, and it works
    without spaces between words. Of two replies to the same line, the second gets more than the
    reply to another line 73 times of 100 in English and 78 in Chinese; with "edit_distance" that
    is 69 and 72, with "token_f1", which compares words, 74 and 50: no better than chance where
    words are not separated.

    **Success.** The text is one of the known replies, case, punctuation and spacing aside. That is
    much to ask where many replies are good: a text that misses it may be a fine answer.

    **Source.** The package chatterbot-corpus (BSD licence), which volunteers wrote and translated,
    some of it by machine, so that quality varies. Superfluous white space is taken out. Left out
    are turns of several lines, which are programs (the English category "coding" is nothing else),
    and a few entries that are not lists of lines. The built-in model has read most of the English
    conversations in its pre-training: for it they are held out of training with rewards only.

    Args:
        language: One of its languages, such as "english", "chinese" or "german".
        categories: Those to take, such as "greetings" or "trivia"; None takes all. They differ
            between languages.
        max_turns: Most lines in a prompt. Longer prompts are left out, since all contexts are as
            long as the longest; 1 leaves first replies only, None takes all (25 lines in English).
        validation_fraction: Share of conversations to hold out for validation, from 0 (no such
            split) to below 1.
        test_fraction: The same for the test split.
        seed: Chooses which conversations are held out.

    Raises:
        ValueError: If there is no such language or category, `max_turns` is no whole number of at
            least 1, or the fractions are out of range.
        TypeError: If `categories` is a string.
        MissingExtra: If chatterbot-corpus or PyYAML is not installed.
    """
    fractions = {"validation": validation_fraction, "test": test_fraction}
    check_fractions(fractions)
    if max_turns is not None and (not isinstance(max_turns, int) or max_turns < 1):
        raise ValueError(f"max_turns is a whole number of at least 1, or None, got {max_turns!r}.")
    exchanges = [
        exchange
        for path in _files(language, categories)
        for exchange in _exchanges(path)
        if max_turns is None or len(exchange.lines) <= max_turns
    ]
    splits = hold_out(_examples(exchanges), fractions, seed, key=_first_line)
    return Task(f"dialogue:{language}", splits, reward="chrf", success=is_known, stop=("\n",))


def is_known(sample: Sample) -> bool:
    """Whether a text is one of the known replies, case, punctuation and spacing aside."""
    known = [*sample.columns.get("replies", ()), sample.reference or ""]
    return content_key(sample.text) in set(map(content_key, known)) - {""}


class _Exchange(NamedTuple):
    """Lines of a conversation and the reply to them."""

    lines: tuple[str, ...]
    reply: str
    category: str


def _files(language: str, categories: Collection[str] | None) -> list[Path]:
    """The files of a language, each of which is a category."""
    folder = Path(_require("chatterbot_corpus").__path__[0], "data")
    languages = [path.name for path in folder.iterdir() if any(path.glob("*.yml"))]
    if language not in languages:
        raise ValueError(
            f"no conversations in {language!r}; {did_you_mean(str(language), languages)}."
        )
    files = {path.stem: path for path in sorted((folder / language).glob("*.yml"))}
    if isinstance(categories, str):
        raise TypeError(f"categories is a list of names, such as [{categories!r}].")
    for category in categories or ():
        if category not in files:
            raise ValueError(
                f"no category {category!r} in {language}; {did_you_mean(str(category), files)}."
            )
    return [path for name, path in files.items() if categories is None or name in categories]


@cache
def _exchanges(path: Path) -> tuple[_Exchange, ...]:
    """All that is said and answered in a file."""
    return tuple(_read(path))


def _read(path: Path) -> Iterator[_Exchange]:
    yaml = _require("yaml")
    # Every scalar as a string: answers such as 1963 and No are text here.
    content: dict[str, Any] = yaml.load(path.read_text("utf-8-sig"), Loader=yaml.BaseLoader)
    for conversation in content["conversations"]:
        if isinstance(conversation, str) or any("\n" in line.strip() for line in conversation):
            continue
        lines = tuple(" ".join(line.split()) for line in conversation)
        if path.stem in _IN_TURNS:
            ends: Iterator[int] = iter(range(1, len(lines), 2))
            yield from (_Exchange(lines[:end], lines[end], path.stem) for end in ends)
        else:
            for reply in lines[1:]:
                if content_key(reply) != content_key(lines[0]):
                    yield _Exchange(lines[:1], reply, path.stem)


def _examples(exchanges: list[_Exchange]) -> list[Example]:
    """An example for each prompt, with all replies to it."""
    replies: dict[tuple[str, ...], dict[str, None]] = {}
    for lines, reply, _ in exchanges:
        replies.setdefault(_key(lines), {})[reply] = None
    first: dict[tuple[str, ...], _Exchange] = {}
    for exchange in exchanges:
        first.setdefault(exchange.lines, exchange)
    return [_example(exchange, list(replies[_key(exchange.lines)])) for exchange in first.values()]


def _example(exchange: _Exchange, replies: list[str]) -> Example:
    messages = tuple(
        Message("assistant" if turn % 2 else "user", line)
        for turn, line in enumerate(exchange.lines)
    )
    prompt = "".join(f"{line}\n" for line in exchange.lines)
    columns = {"category": exchange.category, "replies": replies}
    return Example(prompt, exchange.reply, columns, messages)


def _key(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(content_key, lines))


def _first_line(example: Example) -> str:
    return content_key(example.messages[0].content)
