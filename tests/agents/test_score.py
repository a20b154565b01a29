"""Texts of a file, scored from the command line."""

import json

import pytest
from rapidfuzz.distance import Levenshtein

from agents.cli import main
from agents.score import ScoreConfig, score

TEXTS = [" love you, my sweet friend.", " hate this terrible day"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [
        {"prompt": "I", "text": text, "reference": " love you", "word": "sweet"} for text in TEXTS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_are_shown_and_summed_up(file, capsys):
    assert main(["score", str(file), "--reward", "sentiment=1,token_count=0.5"]) == 1
    assert "no reward named 'token_count'" in capsys.readouterr().err
    assert main(["score", str(file), "--reward", "sentiment=1,length=0.5"]) == 0
    shown = capsys.readouterr().out
    for part in ("I love you, my sweet friend.", "2 texts", "sentiment", "length", "weighted sum"):
        assert part in shown


def test_each_token_and_the_scores_go_to_a_file(file, tmp_path, capsys):
    output = tmp_path / "scores.jsonl"
    arguments = ["--reward", "edit_distance", "--output", str(output), "--show", "0"]
    assert main(["score", str(file), *arguments]) == 0
    assert "friend" not in capsys.readouterr().out
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["text"] for record in records] == TEXTS
    for record in records:
        assert "".join(record["pieces"]) == record["text"]
        assert len(record["pieces"]) == len(record["rewards"]) == len(record["token_ids"])
        assert sum(record["rewards"]) == pytest.approx(record["score"], abs=1e-4)
    similarity = Levenshtein.normalized_similarity(TEXTS[0].strip(), "love you")
    assert records[0]["score"] == pytest.approx(similarity, abs=1e-4)


def test_columns_and_prompts_reach_the_reward(file, tmp_path, monkeypatch):
    (tmp_path / "mine_for_score.py").write_text(
        "def found(prompt, text, word):\n    return 10 * len(prompt) + (word in text)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    played = score(ScoreConfig(file, reward="mine_for_score:found"))
    assert [each.score for each in played] == [11.0, 10.0]


def test_plain_lines_without_a_prompt(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("I am glad.\n")
    (played,) = score(ScoreConfig(path))
    assert played.score == pytest.approx(0.4588, abs=1e-4)


def test_a_weight_that_changes_is_explained(file, capsys):
    reward = json.dumps({"name": "schedule", "reward": "sentiment"})
    assert main(["score", str(file), "--reward", reward]) == 0
    assert "Weights change with training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "there is no file none.txt"),
        (["texts.jsonl", "--text-column", "txt"], "did you mean 'text'"),
        (["texts.jsonl", "--max-new-tokens", "2"], "max_new_tokens is 2; raise it"),
        (["bare.txt", "--reward", "edit_distance"], "in the column 'reference' of a file"),
        (["bare.txt", "--text-column", "text2"], "has no columns, so that --text-column text2"),
        (["empty.txt"], "holds no text. Write at least one row."),
        (["."], "Give the file of texts inside it."),
        (["other.jsonl"], "line 1: no text in a column 'text'; did you mean 'txt'"),
        (["bare.txt", "--reward", '{"length": 1'], "1' is no JSON"),
        (["bare.txt", "--reward", "length=abc"], "'length=abc': 'abc' is no weight"),
    ],
)
def test_what_cannot_be_scored(file, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(file.parent)
    (file.parent / "bare.txt").write_text("text\n")
    (file.parent / "empty.txt").write_text("\n")
    (file.parent / "other.jsonl").write_text('{"txt": "a"}\n')
    # The parser leaves by itself where it finds the fault.
    try:
        status: object = main(["score", *arguments])
    except SystemExit as refused:
        status = refused.code
    assert status in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
