"""Questions of reasoning_gym: made, held out, rewarded and judged by its own verifiers."""

import pickle
import random
import sys

import pytest

from textgym import rewards, tasks
from textgym.completion import Sample
from textgym.extras import MissingExtra
from textgym.rewards.make import build

# Answers that must match, partial credit, grids of tuples, answers judged by what they do, chance
# of Python's own.
TRIED = [
    "chain_sum",
    "countdown",
    # Its data are read from a file that is never closed.
    pytest.param(
        "arc_agi",
        marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    ),
    "rearc",
    "knights_knaves",
    "list_functions",
]


def make(name, **params):
    params = {"size": 12, "allow_eval": True, **params}
    return tasks.make({"name": f"reasoning_gym:{name}", **params})


def sample(example, text):
    return Sample(example.prompt, text, example.reference, [], example.columns)


def verified(task, example, text):
    params = {key: value for key, value in task.reward.items() if key != "name"}
    score = build(task.reward["name"], **params)
    return score(text, example.prompt, example.reference, example.columns["metadata"])


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("extract", ["text", "tags"])
def test_the_reference_is_right_and_other_answers_are_not(name, extract):
    task = pickle.loads(pickle.dumps(make(name, extract=extract)))
    assert len(task.examples) == 12
    for example in task.examples:
        right = example.reference
        if extract == "tags":
            right = f"Let me see. <answer>{right}</answer>"
        assert verified(task, example, right) == 1.0
        assert task.success(sample(example, right)) is True
        for wrong in ("", "no idea", f"{right} is wrong"[: len(right) // 2]):
            assert task.success(sample(example, wrong)) is (verified(task, example, wrong) == 1.0)
        assert not task.success(sample(example, "no idea"))


@pytest.mark.parametrize("name", TRIED)
def test_the_same_seed_makes_the_same_task(name):
    random.seed(1)
    first = make(name, size=5)
    random.seed(2)
    before = random.getstate()
    again = make(name, size=5)
    assert first.splits == again.splits
    assert random.getstate() == before
    if name != "arc_agi":  # which has a fixed set
        assert not {e.prompt for e in make(name, size=5, seed=1).examples} & {
            e.prompt for e in first.examples
        }


def test_no_question_is_asked_twice():
    easy = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    task = make("chain_sum", size=1000, config=easy)
    prompts = [example.prompt for example in task.examples]
    assert len(prompts) == len(set(prompts)) < 250
    assert [len(task.split(s)) for s in task.splits][1:] == [round(len(prompts) / 10)] * 2


def test_the_answer_is_asked_for_where_it_is_looked_for():
    (question,) = {e.prompt for e in make("chain_sum", size=1).examples}
    (last_line,) = make("chain_sum", size=1, extract="last_line").examples
    assert last_line.prompt.startswith(f"{question}\n")
    assert "on the last line" in last_line.prompt
    (tags,) = make("chain_sum", size=1, extract="tags").examples
    assert tags.messages[0].content == tags.prompt
    assert "between <answer> and </answer>" in tags.prompt
    (own,) = make("chain_sum", size=1, extract="tags", instruction="Say <answer>.").examples
    assert own.prompt == f"{question}\nSay <answer>.\n"
    assert make("chain_sum", extract="tags").stop == ("</answer>",)
    assert make("chain_sum").stop == ()


def test_difficulty_is_set_by_configuration_or_level():
    def longest(**params):
        task = make("chain_sum", size=40, **params)
        return max(e.columns["metadata"]["num_terms"] for e in task.examples)

    assert longest(config={"min_terms": 2, "max_terms": 2}) == 2
    assert longest(level=0) == 2
    assert longest(level=2) > 2
    assert longest(level=99) > longest(level=2)
    assert longest(level=0, config={"max_terms": 5}) == 5
    assert make("chain_sum", level=0).reward["config"]["max_terms"] == 2


def test_a_text_that_the_verifier_cannot_read_is_no_solution():
    task = make("prime_factorization", size=1)
    (example,) = task.examples
    for text in ("", "no idea", "2 × 3 and"):  # noqa: RUF001
        assert task.success(sample(example, text)) is False
        assert verified(task, example, text) <= 0.01
    assert task.success(sample(example, example.reference)) is True


def test_a_task_and_its_test_can_be_hashed():
    first, again = make("chain_sum", size=2), make("chain_sum", size=2)
    assert len({first, again}) == 1
    assert len({first.success, again.success}) == 1


def test_a_prompt_that_is_not_its_own_is_not_solved():
    task = make("chain_sum", size=1)
    assert task.success(Sample("1 + 1 =", "2", "2", [], {})) is False


def test_the_reward_is_what_environments_make_of_it():
    assert list(rewards.make(make("leg_counting").reward).rewards) == ["verifier"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"name": "chainsum"}, r"^task 'reasoning_gym': no dataset 'chainsum' .* 'chain_sum'"),
        (
            {"config": {"terms": 3}},
            r"^task 'reasoning_gym': .* refuses config .*Accepted: .*min_terms",
        ),
        ({"config": {"size": 3}}, "size is a parameter of the task"),
        ({"size": 0}, "size is a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed is a whole number from 0 to 4095, got -1"),
        ({"extract": "all"}, "extract is one of 'text', 'last_line', 'tags', got 'all'"),
        ({"level": -1}, "level is a whole number of at least 0, got -1"),
        ({"name": "list_functions", "level": 1}, "no curriculum for 'list_functions'"),
        (
            {"name": "countdown"},
            r"^task 'reasoning_gym': .*may run the model's text .* allow_eval=True",
        ),
    ],
)
def test_what_cannot_be_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        tasks.make({"name": f"reasoning_gym:{params.pop('name', 'chain_sum')}", **params})


def test_without_reasoning_gym_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingExtra, match=r"task 'reasoning_gym' needs .*'textgym\[verifier\]"):
        tasks.make("reasoning_gym:chain_sum")
