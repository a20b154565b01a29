"""Answers verified by reasoning_gym, from the file of a task to the reward of a token."""

import ast
import copy
import inspect
import json
import sys
import textwrap

import gymnasium as gym
import pytest
import reasoning_gym

import textgym  # noqa: F401  # registers the environments
from textgym import rewards
from textgym.checks import check_reward
from textgym.extras import MissingExtra
from textgym.rewards.verifier import Verifier
from textgym.tasks import Example, Task
from textgym.verifiers import RUNS_CODE, find_answer

SUM = Example("State the final answer to the following arithmetic problem: 4 + 3 =", "7")

# Some of each family, those with answers of their own, and those that keep no answer.
TRIED = [
    "ab", "acre", "advanced_geometry", "calendar_arithmetic", "chain_sum", "countdown",
    "cryptarithm", "decimal_chain_sum", "dice", "emoji_mystery", "fraction_simplification",
    "futoshiki", "game_of_life", "gcd", "graph_color", "isomorphic_strings", "jugs", "kakurasu",
    "knights_knaves", "letter_counting", "mini_sudoku", "n_queens", "number_sorting",
    "propositional_logic", "quantum_lock", "rubiks_cube", "rush_hour", "sentence_reordering",
    "shortest_path", "sokoban", "survo", "syllogism", "tower_of_hanoi", "word_ladder",
    "zebra_puzzles",
]  # fmt: skip


def test_an_answer_is_right_wrong_or_partly_right():
    score = Verifier("chain_sum")
    assert score("7", SUM.prompt, "7") == score("\n +7.0 ", SUM.prompt, "7") == 1.0
    assert score("", SUM.prompt, "7") == score("8", SUM.prompt, "7") == 0.0
    assert score("it is 7", SUM.prompt, "7") == pytest.approx(1 / 7)


def test_a_verifier_may_read_the_metadata_alone():
    metadata = {"numbers": [3, 5, 2], "target": 16}
    score = Verifier("countdown", allow_eval=True)
    assert score("2*(3+5)", "prompt", metadata=metadata) == 1.0
    assert score("2+3+5", "prompt", metadata=metadata) == 0.05
    assert score("", "prompt", metadata=metadata) == 0.01


def test_a_verifier_may_depend_on_the_configuration():
    loose = Verifier("puzzle24", {"min_value": 1, "max_value": 6}, allow_eval=True)
    assert loose("1*2*3*4", "1, 2, 3, 4", metadata={"numbers": [1, 2, 3, 4]}) == 1.0


@pytest.mark.parametrize("name", TRIED)
def test_the_score_is_that_of_reasoning_gym(name):
    dataset = reasoning_gym.create_dataset(name, size=2, seed=1)
    reward = Verifier(name, allow_eval=True)
    for entry in dataset:
        # As it comes out of a file.
        example = json.loads(json.dumps(entry))
        before = copy.deepcopy(example)
        oracle = entry["answer"]
        answers = ["", "1", "12 apples", "[[1, 2], [3", "你好"]
        if oracle is not None:
            answers += [oracle, oracle[: len(oracle) // 2], f"{oracle} or so"]
        for answer in answers:
            paid = reward(answer, example["question"], example["answer"], example["metadata"])
            assert paid == float(dataset.score_answer(answer.strip(), entry))
            assert 0.0 <= paid <= 1.0
        assert example == before


EXTRACTED = [
    ("text", "", ""),
    ("text", " so\n 7 ", "so\n 7"),
    ("last_line", "so\n 7 \n\n", "7"),
    ("last_line", " \n", ""),
    ("last_line", "7", "7"),
    ("tags", "<think>4 + 3</think> <answer> 7 </answer> done", "7"),
    ("tags", "<answer>6</answer> no: <answer>7</answer>", "7"),
    ("tags", "<answer>7", None),
    ("tags", "7", None),
]


@pytest.mark.parametrize(("extract", "text", "answer"), EXTRACTED)
def test_the_answer_is_found_in_the_text(extract, text, answer):
    assert find_answer(text, extract) == answer
    expected = 1.0 if answer == "7" else 0.0
    if answer is None or answer in ("", "7"):
        assert Verifier("chain_sum", extract=extract)(text, SUM.prompt, "7") == expected


def spelled(text):
    return [byte + 1 for byte in text.encode()]


def test_end_to_end_from_a_file(byte_tokenizer, tmp_path):
    entries = list(reasoning_gym.create_dataset("countdown", size=3, seed=0))
    path = tmp_path / "countdown.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    env = gym.make(
        "TextGen-v0",
        task={
            "name": "file",
            "path": str(path),
            "validation_fraction": 0,
            "test_fraction": 0,
            "prompt_column": "question",
            "reference_column": "answer",
        },
        reward={"name": "verifier", "dataset": "countdown", "extract": "tags", "allow_eval": True},
        tokenizer=byte_tokenizer,
    )
    answer_of = {entry["question"]: entry["answer"] for entry in entries}
    _, info = env.reset(seed=0)
    written = f"<answer>{answer_of[info['prompt']]}</answer>"
    paid = []
    for token in [*spelled(written), 0]:
        _, reward, terminated, _, info = env.step(token)
        paid.append(reward)
    assert terminated
    # 0.01 for nothing, and the rest for the character that closes the answer.
    assert paid[0] == pytest.approx(0.01)
    assert paid[-2] == pytest.approx(0.99)
    assert sum(paid) == pytest.approx(1.0)
    assert info["is_success"] is True


def test_it_keeps_the_contract(byte_tokenizer):
    entries = reasoning_gym.create_dataset("decimal_chain_sum", size=2, seed=0)
    examples = [Example(e["question"], e["answer"], {"metadata": e["metadata"]}) for e in entries]
    reward = {"name": "verifier", "dataset": "decimal_chain_sum", "config": {"max_terms": 3}}
    check_reward(reward, examples=examples, tokenizer=byte_tokenizer, max_new_tokens=12)


def first_token(byte_tokenizer, example, dataset, text="3"):
    env = gym.make(
        "TextGen-v0",
        task=Task("one", {"train": (example,)}),
        reward={"name": "verifier", "dataset": dataset, "allow_eval": True},
        tokenizer=byte_tokenizer,
    )
    env.reset(seed=0)
    return [env.step(token) for token in spelled(text)]


def test_what_the_verifier_misses_is_an_error(byte_tokenizer):
    # The verifier of countdown catches the KeyError and calls every answer wrong.
    with pytest.raises(rewards.RewardError, match="'countdown' needs the entry's metadata"):
        first_token(byte_tokenizer, Example("p", "7"), "countdown")
    with pytest.raises(rewards.RewardError, match="compares with a reference, and this prompt has"):
        first_token(byte_tokenizer, Example("p"), "chain_sum")
    other = Example("p", "7", {"metadata": {"numbers": [3]}})
    with pytest.raises(rewards.RewardError, match="needs 'target' in the metadata, which holds"):
        first_token(byte_tokenizer, other, "countdown")
    with pytest.raises(rewards.RewardError, match=r"metadata' holds a JSON object, got '\{\}'"):
        first_token(byte_tokenizer, Example("p", "7", {"metadata": "{}"}), "countdown")


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        ("prime_factorization", "x"),
        ("prime_factorization", "two"),
        ("boxnet", "[1]"),
        ("boxnet", "1"),
        ("coin_flip", "1e400"),
        ("game_of_life", "{}"),
    ],
)
def test_a_text_that_the_verifier_cannot_read_is_wrong(byte_tokenizer, dataset, text):
    judge = reasoning_gym.create_dataset(dataset, size=1, seed=1)
    with pytest.raises((ValueError, TypeError, AttributeError, KeyError, OverflowError)):
        judge.score_answer(text, judge[0])
    example = Example("p", judge[0]["answer"], {"metadata": judge[0]["metadata"]})
    steps = first_token(byte_tokenizer, example, dataset, text)
    assert sum(step[1] for step in steps) == 0.0


def test_a_reference_that_the_verifier_cannot_read_stops_the_run(byte_tokenizer):
    metadata = {"number": 6, "factors": [2, 3]}
    example = Example("p", "two times three", {"metadata": metadata})
    message = "cannot judge even the reference, 'two times three' .*ValueError: invalid literal"
    for text in ("x", "2"):
        with pytest.raises(rewards.RewardError, match=message):
            first_token(byte_tokenizer, example, "prime_factorization", text)
    # What the prompt lacks is told first, even where the text cannot be read either.
    with pytest.raises(rewards.RewardError, match="compares with a reference, and this prompt has"):
        first_token(
            byte_tokenizer, Example("p", columns={"metadata": metadata}), "prime_factorization", "x"
        )
    with pytest.raises(rewards.RewardError, match="'boxnet' needs 'initial_state' in the metadata"):
        first_token(byte_tokenizer, Example("p", columns={"metadata": {}}), "boxnet", "1")


def test_bad_parameters_are_refused():
    with pytest.raises(
        ValueError, match=r"^reward 'verifier': no dataset 'chainsum' .* mean 'chain_sum'"
    ):
        Verifier("chainsum")
    with pytest.raises(ValueError, match=r"no dataset 'composite' in reasoning_gym; .*'zebra_p"):
        Verifier("composite")
    with pytest.raises(ValueError, match=r"refuses config .*terms.* for 'chain_sum'.* min_terms,"):
        Verifier("chain_sum", {"terms": 3})
    with pytest.raises(ValueError, match=r"refuses config .*min_terms must be positive"):
        Verifier("chain_sum", {"min_terms": 0})
    with pytest.raises(TypeError, match=r"^reward 'verifier': config holds what JSON can"):
        Verifier("chain_sum", {"seed": {1}})
    with pytest.raises(ValueError, match="extract is 'text', 'last_line' or 'tags', got 'all'"):
        Verifier("chain_sum", extract="all")
    with pytest.raises(TypeError, match="dataset"):
        rewards.make("verifier")


def runs_code(function, kind, read):
    """Whether a function evaluates anything, or one of reasoning_gym that it calls."""
    read.add(function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for name in {getattr(call, "id", None) or getattr(call, "attr", "") for call in called}:
        ours = getattr(kind, name, None) or getattr(sys.modules[function.__module__], name, None)
        if getattr(ours, "__module__", "").startswith("reasoning_gym"):
            if ours not in read and runs_code(ours, kind, read):
                return True
        elif name in ("eval", "exec", "parse_expr", "sympify"):
            return True
    return False


def test_a_verifier_that_would_run_the_text_or_the_file_is_refused():
    kinds = {name: kind for name, (kind, _) in reasoning_gym.factory.DATASETS.items()}
    found = {name for name, kind in kinds.items() if runs_code(kind.score_answer, kind, set())}
    assert found == RUNS_CODE
    for name in RUNS_CODE:
        with pytest.raises(ValueError, match=r"may run the model's text or the task's file as Py"):
            Verifier(name)


def test_what_a_file_holds_is_run_on_request_only(tmp_path):
    made = tmp_path / "made"
    harm = f"__import__('pathlib').Path({str(made)!r}).touch()"
    for name, entry in (
        ("bitwise_arithmetic", {"reference": "1", "metadata": {"problem": harm}}),
        ("number_sorting", {"reference": harm, "metadata": {"direction": "ascending"}}),
    ):
        with pytest.raises(ValueError, match="allow_eval"):
            Verifier(name)("[1]", "prompt", **entry)
        assert not made.exists()
        assert Verifier(name, allow_eval=True)("[1]", "prompt", **entry) < 1.0
        made.unlink()


def test_without_reasoning_gym_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingExtra, match=r"reward 'verifier' needs .*'textgym\[verifier\]"):
        Verifier("leg_counting")


def test_metadata_that_json_changes_can_make_right_answers_wrong():
    entry = reasoning_gym.create_dataset("rearc", size=1, seed=1)[0]
    score = Verifier("rearc")
    again = json.loads(json.dumps(entry["metadata"]))
    assert score(entry["answer"], "p", metadata=entry["metadata"]) == 1.0
    assert score(entry["answer"], "p", metadata=again) < 0.1
