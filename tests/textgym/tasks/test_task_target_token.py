import pytest

from textgym.tasks import make


def test_the_default_asks_for_the_same_token_everywhere():
    task = make("target_token")
    assert [example.prompt for example in task.split("train")] == [f"{k}:a" for k in range(1, 9)]
    assert {example.reference for example in task.examples} == {"a"}


def test_the_reward_is_the_one_that_looks_at_the_token():
    assert make("target_token").reward == "target_token"


def test_every_split_holds_the_same_examples():
    task = make("target_token")
    assert task.split("train") == task.split("validation") == task.split("test")


def test_with_several_targets_only_the_end_of_the_prompt_tells_the_answer():
    task = make({"name": "target_token", "targets": ["a", " b", "c"], "num_prompts": 7})
    pairs = [(example.prompt, example.reference) for example in task.split("train")]
    assert pairs[:4] == [("1:a", "a"), ("1: b", " b"), ("1:c", "c"), ("2:a", "a")]
    assert len(set(pairs)) == 7
    assert all(prompt.endswith(f":{target}") for prompt, target in pairs)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"targets": "abc"}, TypeError, "must be a list of strings"),
        ({"targets": ["a", 3]}, TypeError, "must be a list of strings"),
        ({"targets": []}, ValueError, "different, non-empty"),
        ({"targets": ["a", ""]}, ValueError, "different, non-empty"),
        ({"targets": ["a", "a"]}, ValueError, "different, non-empty"),
        ({"num_prompts": 0}, ValueError, "at least 1"),
        ({"num_prompts": 2.0}, TypeError, "must be an integer"),
        ({"targets": ["a", "b", "c"], "num_prompts": 2}, ValueError, "at least 3"),
    ],
)
def test_impossible_parameters_are_refused(params, error, message):
    with pytest.raises(error, match=message):
        make({"name": "target_token", **params})
