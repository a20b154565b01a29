"""Texts as the page gets them."""

import json
import math

import numpy as np
import pytest

from agents.reporting.run import load_run
from agents.reporting.token_texts import LATEST, full_colour, show_tokens, text_sets


def test_a_text_before_beside_the_text_after(make_run, make_text):
    before = make_text([" a", "\x07"], -0.5, rewards=[-0.5, 0.0], components={"s": [-0.5, 0.0]})
    after = make_text(
        [" b", ""],
        1.5,
        silent={"1": "<|end|>"},
        context="Say: Once",
        rewards=[1.0, 0.5],
        log_probs={"before": [math.log(0.25), -1.0], "after": [math.log(0.5), None]},
        values={"before": [0.0, 0.0], "after": [0.123456789, None]},
    )
    [found] = text_sets(load_run(make_run(texts=([before], [after]))), 10)
    assert found["columns"] == ["Before training", "After training"]
    [prompt] = found["prompts"]
    one, two = prompt["texts"]
    assert one["tokens"] == [" a", "\\x07"]
    assert "context" not in one
    assert (one["score"], one["rewards"], one["components"]) == (-0.5, [-0.5, 0], {"s": [-0.5, 0]})
    assert two["context"] == "Say: Once"
    assert two["silent"] == {"1": "<|end|>"}
    assert two["probabilities"][0][0] == pytest.approx(0.25)
    assert two["probabilities"][1] == [pytest.approx(0.5), None]
    assert two["values"] == [[0, 0], [0.12346, None]]
    json.dumps(found, allow_nan=False)


def test_most_texts_are_cut_off_and_said_so(make_run, make_text):
    texts = [make_text([" a"], score) for score in range(5)]
    [found] = text_sets(load_run(make_run(texts=(texts, texts))), 3)
    assert [prompt["texts"][0]["score"] for prompt in found["prompts"]] == [0, 1, 2]
    assert found["notes"] == ["The first 3 of 5 prompts are shown."]


def test_without_a_critic_there_are_no_values(make_run, make_text):
    texts = [make_text([" a"])]
    del texts[0]["values"]
    [found] = text_sets(load_run(make_run(texts=(texts, texts))), 3)
    assert "values" not in found["prompts"][0]["texts"][0]


def killed(path, tokenizer, token_ids):
    for name in ("result.json", "texts.json"):
        (path / name).unlink()
    record = {
        "prompt": "ab",
        "text": "hé",
        "token_ids": token_ids,
        "rewards": [0.5] * len(token_ids),
        "score": 2.0,
        "scores": {},
    }
    (path / "before.json").write_text(
        json.dumps([{**record, "contexts": [[0, tokenizer.encode("x ab")]], "components": {}}])
    )
    lines = [json.dumps({**record, "timesteps": step}) + "\n" for step in range(30)]
    (path / "samples.jsonl").write_text("".join(lines))
    return load_run(path)


def test_a_run_that_was_killed_shows_what_there_is(make_run, byte_tokenizer, byte_tokenizer_dir):
    token_ids = [*byte_tokenizer.encode("hé"), byte_tokenizer.eos_token_id]
    run = killed(make_run(model=byte_tokenizer_dir), byte_tokenizer, token_ids)
    before, latest = text_sets(run, 100)
    [prompt] = before["prompts"]
    [text] = prompt["texts"]
    assert text["tokens"] == ["h", "", "é", ""]
    assert text["silent"] == {"3": "<|endoftext|>"}
    assert text["context"] == "x ab"
    assert [p["texts"][0]["timesteps"] for p in latest["prompts"]] == list(range(30))[-LATEST:]


def test_without_its_tokenizer_a_text_is_shown_whole(make_run, byte_tokenizer, tmp_path):
    run = killed(make_run(model=str(tmp_path / "gone")), byte_tokenizer, [1, 2])
    before, _ = text_sets(run, 100)
    [text] = before["prompts"][0]["texts"]
    assert (text["tokens"], text["rewards"]) == (["hé"], [1.0])
    assert "tokenizer" in before["notes"][0]


def test_the_full_colour_is_not_that_of_one_token_alone():
    assert full_colour([0.0, 0.0]) == 1.0
    assert full_colour([0.5, 0.0, -0.5]) == 0.5
    assert full_colour([1.0] * 99 + [1000.0]) == 1.0


def test_every_token_has_a_piece(byte_tokenizer):
    token_ids = byte_tokenizer.encode("a 🙂!")
    shown = show_tokens(byte_tokenizer, np.array([1]), token_ids)
    assert "".join(shown["pieces"]) == "a 🙂!"
    assert len(shown["pieces"]) == len(token_ids)
    assert shown["silent"] == {}
