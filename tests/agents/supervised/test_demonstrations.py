"""Texts to imitate, as tokens."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.supervised import Demonstrations
from agents.supervised.demonstrations import batches
from agents.supervised.encoding import Demonstration
from textgym import tasks
from textgym.prompt_format import PlainFormat, prompt_format
from textgym.tasks.base import Example, Task
from textgym.tokenizer import Tokenizer

CPU = torch.device("cpu")
EXAMPLES = (
    Example("ab", "cd"),
    Example("c"),  # without a reference
    Example("abc", "dab"),
    Example("h", ""),
)
CHATML = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def a_task(examples: Any = EXAMPLES, **settings: Any) -> Task:
    return Task("mine", {"train": examples}, **settings)


def of(task: Task, tokenizer: Tokenizer, **settings: Any) -> Demonstrations:
    return Demonstrations.of_task(task, "train", prompt_format(tokenizer, None), **settings)


def texts(tokenizer: Tokenizer, demonstrations: list[Demonstration]) -> list[tuple[str, str, bool]]:
    """Context, what is learned, and whether that ends with the end token."""
    return [
        (tokenizer.decode(context), tokenizer.decode(written), written[-1] == 0)
        for context, written in demonstrations
    ]


def test_references_follow_their_prompts_and_end(byte_tokenizer: Tokenizer) -> None:
    found = of(a_task(), byte_tokenizer)
    assert texts(byte_tokenizer, found.all()) == [
        ("ab", "cd", True),
        ("abc", "dab", True),
        ("h", "", True),
    ]
    assert (found.size, found.cut, found.longest) == (3, 0, 7)


def test_the_environment_agrees_with_what_is_imitated(byte_tokenizer_dir: str) -> None:
    """An agent that writes a demonstration's tokens gets the best score, and its text ends."""
    from textgym.env import TextGenEnv

    task = a_task(reward="edit_distance")
    env = TextGenEnv(task=task, tokenizer=byte_tokenizer_dir, max_new_tokens=8)
    form = env.process.format
    demonstrations = Demonstrations.of_task(task, "train", form, templates=["Q: {prompt}\nA:"])
    env = TextGenEnv(
        task=task, tokenizer=byte_tokenizer_dir, max_new_tokens=8, templates=["Q: {prompt}\nA:"]
    )
    for (context, written), index in zip(demonstrations.all(), (0, 2), strict=False):
        observation, _ = env.reset(options={"prompt_index": index})
        length = int(observation["attention_mask"].sum())
        assert observation["input_ids"][:length].tolist() == context.tolist()
        for token in written.tolist():
            *_, terminated, _, info = env.step(token)
        assert terminated
        assert info["score"] == pytest.approx(1.0)


def test_a_chat_model_imitates_its_turn(byte_tokenizer: Tokenizer) -> None:
    chat = Tokenizer(
        byte_tokenizer.backend, name="chat", eos_token="<|endoftext|>", chat_template=CHATML
    )
    context, written = of(a_task(), chat).all()[0]
    assert context.tolist() == prompt_format(chat, None).encode(EXAMPLES[0])
    assert chat.decode(context) == "[user]ab\n[assistant]"
    assert written.tolist() == [*chat.encode_plain("cd"), 0]


def test_templates_take_turns_when_all_are_read_and_are_drawn_by_chance(
    byte_tokenizer: Tokenizer,
) -> None:
    ways = ["{prompt}", "<{prompt}>"]
    found = of(a_task(), byte_tokenizer, templates=ways)
    contexts = [context for context, _, _ in texts(byte_tokenizer, found.all())]
    assert contexts == ["ab", "<abc>", "h"]
    reading = found.read(seed=0)
    seen = Counter(byte_tokenizer.decode(next(reading).context) for _ in range(300))
    assert set(seen) == {"ab", "<ab>", "abc", "<abc>", "h", "<h>"}
    assert all(count > 30 for count in seen.values())


def test_what_is_too_long_is_cut_without_an_end(byte_tokenizer: Tokenizer) -> None:
    by_budget = of(a_task(), byte_tokenizer, max_new_tokens=3)
    assert texts(byte_tokenizer, by_budget.all())[:2] == [("ab", "cd", True), ("abc", "dab", False)]
    assert by_budget.cut == 1
    by_context = of(a_task(), byte_tokenizer, context_length=4)
    assert texts(byte_tokenizer, by_context.all())[:2] == [("ab", "cd", False), ("abc", "d", False)]
    narrow: Any = {"context_length": 4, "max_new_tokens": 2}
    left = of(a_task(), byte_tokenizer, **narrow, prompt_truncation="left")
    assert texts(byte_tokenizer, left.all())[1] == ("bc", "da", False)
    with pytest.raises(ValueError, match="has 3 tokens, and there is room for 2"):
        of(a_task(), byte_tokenizer, **narrow)
    with pytest.raises(ValueError, match="leaves no room for a prompt"):
        of(a_task(), byte_tokenizer, context_length=2, max_new_tokens=2)


def test_nothing_to_imitate_is_an_error_that_names_the_cure(byte_tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"no train example of task 'mine'.*or a corpus"):
        of(a_task((Example("a"),)), byte_tokenizer)
    with pytest.raises(ValueError, match="several turns"):
        of(tasks.make("game"), byte_tokenizer)
    with pytest.raises(ValueError, match="no tokens"):
        of(a_task((Example("", "a"),)), byte_tokenizer)


def test_special_tokens_that_are_spelt_are_text(byte_tokenizer: Tokenizer) -> None:
    spelt = "a<|endoftext|>b"
    chat = Tokenizer(
        byte_tokenizer.backend, name="chat", eos_token="<|endoftext|>", chat_template=CHATML
    )
    for tokenizer in (byte_tokenizer, chat, Tokenizer.from_pretrained("builtin")):
        (shown,) = of(a_task((Example("Hi", spelt),)), tokenizer).all()
        assert tokenizer.eos_token_id not in shown.written[:-1]
        assert shown.written[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(shown.written) == spelt
    piece = Demonstrations.of_documents([spelt], byte_tokenizer).all()[0]
    assert byte_tokenizer.decode(piece.written) == spelt
    # A prompt may hold them.
    assert byte_tokenizer.encode(spelt)[1] == 0


def test_a_fingerprint_tells_texts_from_others(byte_tokenizer: Tokenizer) -> None:
    def fingerprint(*pairs: tuple[str, str]) -> str | None:
        return of(a_task(tuple(Example(*pair) for pair in pairs)), byte_tokenizer).fingerprint()

    whole = fingerprint(("a", "bc"), ("d", "e"))
    assert whole == fingerprint(("a", "bc"), ("d", "e"))
    assert whole is not None
    others = [
        fingerprint(("a", "bd"), ("d", "e")),  # as long
        fingerprint(("ab", "c"), ("d", "e")),
        fingerprint(("d", "e"), ("a", "bc")),
    ]
    assert len({whole, *others}) == 4
    assert of(a_task(Endless()), byte_tokenizer).fingerprint() is None


class Rows(list[dict[str, str]]):
    """As much of a `datasets.Dataset` as `LazyExamples` asks for."""

    column_names = ("prompt", "reference")

    def select_columns(self, names: list[str]) -> Rows:
        return self

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, range):
            rows = [list.__getitem__(self, i) for i in index]
            return {name: [row[name] for row in rows] for name in self.column_names}
        return super().__getitem__(index)


def test_rows_on_disk_are_read_when_they_are_wanted(byte_tokenizer: Tokenizer) -> None:
    from textgym.tasks.columns import Columns
    from textgym.tasks.lazy import LazyExamples

    rows = Rows({"prompt": e.prompt, "reference": e.reference} for e in EXAMPLES)
    lazy = LazyExamples(rows, Columns("prompt", "reference"), "rows")
    found = of(a_task(lazy), byte_tokenizer)
    with_one = [e for e in lazy if e.reference is not None]
    assert found.size == len(with_one) >= 2
    assert texts(byte_tokenizer, found.all())[:2] == [("ab", "cd", True), ("abc", "dab", True)]


class Endless:
    """A stream, of which every other example has a reference."""

    def __init__(self, with_reference: bool = True) -> None:
        self.drawn = 0
        self.with_reference = with_reference

    def draw(self, generator: np.random.Generator) -> Example:
        self.drawn += 1
        has_one = self.with_reference and self.drawn % 2
        return Example("a", f"{self.drawn}" if has_one else None)


def test_a_stream_is_read_on_and_on(byte_tokenizer: Tokenizer) -> None:
    stream = Endless()
    found = of(a_task(stream), byte_tokenizer)
    assert found.size is None
    first = [byte_tokenizer.decode(next(reading).written) for reading in [found.read(0)] * 3]
    assert first == ["1", "3", "5"]
    assert byte_tokenizer.decode(next(found.read(0, start=2)).written) == "5"
    assert stream.drawn == 0  # it was copied
    drawn = [next(found.draw(1, 100, CPU)).tokens[0].item() for _ in range(2)]
    assert [byte_tokenizer.decode([token]) for token in drawn] == ["1", "3"]
    with pytest.raises(ValueError, match="has no end"):
        found.all()
    with pytest.raises(ValueError, match="nothing to imitate"):
        next(of(a_task(Endless(with_reference=False)), byte_tokenizer).read(0))


def test_each_pass_reads_all_in_another_order(byte_tokenizer: Tokenizer) -> None:
    examples = tuple(Example("a", "abcdefghij"[:n]) for n in range(1, 11))
    found = of(a_task(examples), byte_tokenizer)
    reading = found.read(seed=3)
    passes = [[len(next(reading).written) for _ in range(10)] for _ in range(3)]
    assert all(sorted(one) == list(range(2, 12)) for one in passes)
    assert passes[0] != passes[1] != passes[2]
    again = found.read(seed=3, start=14)
    assert [len(next(again).written) for _ in range(16)] == passes[1][4:] + passes[2]


def test_draws_are_of_the_size_that_is_asked_for_and_of_the_seed(byte_tokenizer: Tokenizer) -> None:
    found = of(a_task(), byte_tokenizer)

    def draw(num_tokens: int, max_tokens: int = 64) -> list[list[int]]:
        np.random.seed(5)
        return [batch.tokens.tolist() for batch in found.draw(num_tokens, max_tokens, CPU)]

    tokens = [token for batch in draw(100) for token in batch]
    assert 100 <= len(tokens) < 104
    assert draw(100) == draw(100)
    assert len(draw(100, 8)) > len(draw(100))
    assert len(draw(1)) == 1


def test_batches_hold_what_models_read(byte_tokenizer: Tokenizer) -> None:
    demonstrations = of(a_task(), byte_tokenizer).all()
    seen = []
    for batch in batches(demonstrations, 8, CPU):
        before = batch.input_ids.flatten()[batch.predicted_at]
        seen += list(zip(batch.places, before.tolist(), batch.tokens.tolist(), strict=True))
    expected = [
        pair
        for context, written in demonstrations
        for pair in zip([context[-1], *written[:-1]], written, strict=True)
    ]
    assert [(before, token) for _, before, token in sorted(seen)] == expected
    assert sorted(place for place, _, _ in seen) == list(range(len(expected)))


def test_documents_are_cut_into_pieces_that_learn_each_token_once(
    byte_tokenizer: Tokenizer,
) -> None:
    found = Demonstrations.of_documents(["abcdefgh", "x"], byte_tokenizer, context_length=4)
    pieces = found.all()
    assert all(len(context) + len(written) <= 4 for context, written in pieces)
    # The end of a text also begins one, since the tokenizer has no token for that.
    assert pieces[0].context.tolist() == [0]
    assert texts(byte_tokenizer, pieces) == [
        ("", "abc", False),
        ("c", "def", False),
        ("f", "gh", True),
        ("", "x", True),
    ]
    with pytest.raises(ValueError, match="no room"):
        Demonstrations.of_documents(["ab"], byte_tokenizer, context_length=1)


def test_the_builtin_tokenizer_begins_documents_itself() -> None:
    tokenizer = Tokenizer.from_pretrained("builtin")
    ((context, written),) = Demonstrations.of_documents(["My lord."], tokenizer).all()
    assert [*context, *written] == [*tokenizer.encode("My lord."), tokenizer.eos_token_id]


def test_a_corpus_is_files_and_directories(tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": "p", "reference": "r"}) + "\n")
    found = Demonstrations.of_corpus([tmp_path, tmp_path / "a.txt"], byte_tokenizer)
    learned = Counter(text for _, text, _ in texts(byte_tokenizer, found.all()))
    assert learned == {"one": 2, "two": 2, "p\nr": 1}
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Demonstrations.of_corpus([tmp_path / "c"], byte_tokenizer)


def test_a_tokenizer_without_an_end_learns_none(byte_tokenizer: Tokenizer) -> None:
    endless = Tokenizer(byte_tokenizer.backend, name="endless")
    form = PlainFormat(endless)
    found = Demonstrations.of_task(a_task(EXAMPLES[:1]), "train", form)
    assert [endless.decode(d.written) for d in found.all()] == ["cd"]
    assert len(found.all()[0].written) == 2
    with pytest.raises(ValueError, match="is empty, and the tokenizer has no end"):
        Demonstrations.of_task(a_task(EXAMPLES[3:]), "train", form)
