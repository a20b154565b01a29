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


def test_trl_gives_tokens_and_conversations(byte_tokenizer):
    reward = as_trl("length", byte_tokenizer, max_new_tokens=8, name="long")
    assert reward.__name__ == "long"
    said = [{"role": "user", "content": "hello"}]
    answer = [{"role": "assistant", "content": "four"}]
    assert reward([said], [answer]) == pytest.approx([4 / 8])
    # Tokens that are given count, an end-of-text token and what TRL cut off included.
    assert reward(["p"], ["ab"], completion_ids=[[98, 99]]) == pytest.approx([2 / 8])


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
