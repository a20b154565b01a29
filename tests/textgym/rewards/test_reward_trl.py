"""Rewards of ours as TRL's reward functions, and replays of given texts."""

import pickle

import numpy as np
import pytest

from textgym.env import TextGenEnv
from textgym.rewards import RewardError, as_trl, make, replay
from textgym.tasks import Example, Task

TEXTS = ["I love you", "no", ""]


@pytest.mark.parametrize("timing", ["immediate", "delayed"])
def test_a_replay_pays_what_the_environment_pays(byte_tokenizer, timing):
    spec = {"sentiment": 1.0, "edit_distance": 0.5, "length": {"target": 4, "weight": -2.0}}
    example = Example("He said", "I love")
    token_ids = [[*byte_tokenizer.encode_plain(text), 0] for text in TEXTS]
    played = replay(make(spec, timing), byte_tokenizer, [example] * 3, token_ids, max_new_tokens=12)
    env = TextGenEnv(
        task=Task("one", {"train": (example,)}),
        reward=spec,
        timing=timing,
        tokenizer=byte_tokenizer,
        max_new_tokens=12,
    )
    for ids, each in zip(token_ids, played, strict=True):
        env.reset()
        paid = []
        for token in ids:
            *_, info = step = env.step(token)
            paid.append(step[1])
        assert each.rewards == pytest.approx(paid)
        assert each.scores == pytest.approx(info["scores"])
        assert each.score == pytest.approx(info["score"])
        assert "".join(each.pieces) == info["text"]


def test_a_text_without_tokens_earns_nothing(byte_tokenizer):
    played = replay(make("length"), byte_tokenizer, [Example("p")] * 2, [[], [5]])
    assert [len(each.rewards) for each in played] == [0, 1]
    assert played[0].score == 0.0


def test_replays_refuse_what_does_not_fit(byte_tokenizer):
    with pytest.raises(ValueError, match="1 examples and 2 texts"):
        replay(make("length"), byte_tokenizer, [Example("p")], [[1], [1]])
    with pytest.raises(ValueError, match="a text has 3 tokens, and max_new_tokens is 2"):
        replay(make("length"), byte_tokenizer, [Example("p")], [[1, 2, 3]], max_new_tokens=2)


def test_trl_gets_the_score_of_the_whole(byte_tokenizer):
    reward = as_trl({"sentiment": 1.0, "edit_distance": 0.5}, byte_tokenizer)
    assert reward.__name__ == "sentiment+edit_distance"
    scores = reward(
        prompts=["a", "b"],
        completions=["I love you", "no"],
        reference=["I love you", "yes"],
        trainer_state=None,
        log_metric=print,
    )
    assert scores == pytest.approx([0.6369 + 0.5, -0.296])


def test_tokens_that_are_given_count(byte_tokenizer):
    reward = as_trl("length", byte_tokenizer, max_new_tokens=8, name="long")
    assert reward.__name__ == "long"
    assert reward(["p"], ["ab"], completion_ids=[[98, 99]]) == pytest.approx([2 / 8])
    ended = as_trl("eos", byte_tokenizer, max_new_tokens=4)
    assert ended(["p"] * 2, ["ab", "ab"], completion_ids=[[98, 99, 0], [98, 99]]) == [1.0, 0.0]
    # Without tokens a completion is whole, unless it fills the budget.
    assert ended(["p"] * 3, ["ab", "", "abcd"]) == [1.0, 1.0, 0.0]


def test_trl_gives_conversations(byte_tokenizer):
    reward = as_trl("length", byte_tokenizer, max_new_tokens=8)
    asked = [{"role": "user", "content": "hello"}]
    answers = [
        [{"role": "assistant", "content": "four"}],
        [
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "content": "much more than eight letters"},
            {"role": "assistant", "content": [{"type": "text", "text": "two"}, {"type": "image"}]},
        ],
    ]
    # The tokens of the template and of the tool are not the model's words.
    ids = [[98] * 20 + [0], [98] * 20]
    assert reward([asked] * 2, answers, completion_ids=ids) == pytest.approx([4 / 8, 4 / 8])

    def prompted(prompt: str, text: str) -> float:
        return float(prompt == "hello" and text.strip() == "two")

    assert as_trl(prompted, byte_tokenizer)([asked] * 2, answers) == [0.0, 1.0]


def test_it_is_called_as_grpo_calls_it(byte_tokenizer):
    reward = as_trl({"exact_match": 1.0}, byte_tokenizer)
    scores = reward(
        prompts=["p", "p"],
        completions=["ab", "b"],
        completion_ids=[[98, 99, 0], [99]],
        reference=["ab", "ab"],
        trainer_state=object(),
        log_extra=print,
        log_metric=print,
        environments=None,
    )
    assert scores == [1.0, -1.0]
    assert all(type(score) is float for score in scores)


def test_the_tokens_of_another_tokenizer_are_refused(byte_tokenizer):
    reward = as_trl("sentiment", byte_tokenizer)
    with pytest.raises(ValueError, match=r"reads as 'lm': the tokens of 'ab'.*model that TRL"):
        reward(["p"], ["ab"], completion_ids=[[109, 110]])
    with pytest.raises(ValueError, match="not all in its vocabulary: the tokens of 'ab'"):
        reward(["p"], ["ab"], completion_ids=[[1090, 110]])


def test_weights_that_change_change_what_trl_gets(byte_tokenizer):
    spec = {"name": "schedule", "reward": "length", "tokens": 6}
    reward = as_trl(spec, byte_tokenizer, max_new_tokens=4)
    assert [reward(["p"], ["ab"])[0] for _ in range(3)] == pytest.approx([0.0, 0.25, 0.5])


def test_columns_reach_the_reward(byte_tokenizer):
    def wanted(text: str, word: str) -> float:
        return float(word in text)

    reward = as_trl(wanted, byte_tokenizer)
    assert reward(["p", "p"], ["a b", "c"], word=["b", "b"]) == [1.0, 0.0]


def test_a_missing_reference_is_said(byte_tokenizer):
    reward = as_trl("exact_match", byte_tokenizer)
    with pytest.raises(RewardError, match="compares with a reference"):
        reward(["p"], ["x"])
    assert as_trl("exact_match", byte_tokenizer, reference_column="answer")(
        ["p"], ["x"], answer=["x"]
    ) == [1.0]


def test_it_goes_through_a_pickle(byte_tokenizer_dir):
    reward = pickle.loads(pickle.dumps(as_trl("sentiment", byte_tokenizer_dir)))
    assert reward(["p"], ["I love you"]) == pytest.approx([0.6369])


def test_trl_takes_it_and_gives_it_back(byte_tokenizer):
    """What TRL makes of our rewards we can make a reward of again."""
    task = Task("one", {"train": (Example("p"),)})
    env = TextGenEnv(
        task=task, reward=as_trl("length", byte_tokenizer), tokenizer=byte_tokenizer,
        max_new_tokens=3,
    )  # fmt: skip
    env.reset()
    paid = [env.step(token)[1] for token in (98, 99, 100)]
    assert np.cumsum(paid) == pytest.approx([1.0, 1.0, 1.0])  # the budget is what was written
