"""Laws of the environment: what holds for any texts, whoever writes them, and in whatever order."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym import TextGenEnv, TextGenVectorEnv
from textgym.tasks import Example, Task
from textgym.tokenizer import Tokenizer

TASK = Task("letters", {"train": [Example(text) for text in ("a", "bc", "def", "gh é")]})
PROMPTS = [example.prompt for example in TASK.examples]
EOS = 0

actions = st.lists(st.lists(st.sampled_from([EOS, 98, 99, 47]), min_size=3, max_size=3), max_size=9)
budgets = st.integers(1, 4)
settings_of_rewards = st.fixed_dictionaries(
    {
        "timing": st.sampled_from(["immediate", "delayed"]),
        "every": st.sampled_from(["token", "word", "sentence"]),
        "stop": st.sampled_from([None, ["."], ["ab"]]),
        "budget_is_terminal": st.booleans(),
        "reward": st.sampled_from(["length", {"length": 0.5, "eos": 2.0}]),
    }
)


def check_observation(observation: dict[str, Any], pad: int) -> None:
    """Rows hold a token at least; what they hold stands at the left, and padding behind it."""
    ids, mask = observation["input_ids"], observation["attention_mask"]
    assert (mask[:, 0] == 1).all()
    assert (np.diff(mask.astype(int), axis=1) <= 0).all()
    assert (ids[mask == 0] == pad).all()


@settings(max_examples=60)
@given(seed=st.integers(0, 99), written=actions, budget=budgets, given_=settings_of_rewards)
def test_rows_are_single_environments(
    byte_tokenizer: Tokenizer, seed: int, written: Any, budget: int, given_: dict[str, Any]
) -> None:
    """Each row of a vector environment does, token for token, what an environment of its own does.

    Episodes are as long as their budget at most; the rewards of each add up to its score.
    """
    kwargs = {"task": TASK, "tokenizer": byte_tokenizer, "max_new_tokens": budget, **given_}
    rows = TextGenVectorEnv(3, **kwargs, autoreset_mode=AutoresetMode.SAME_STEP)
    singles = [TextGenEnv(**kwargs) for _ in range(3)]
    observation, infos = rows.reset(seed=seed)
    prompts = [env.reset(seed=seed + i)[1]["prompt"] for i, env in enumerate(singles)]
    assert infos["prompt"].tolist() == prompts
    paid: list[list[float]] = [[] for _ in singles]
    for step in written:
        observation, rewards, terminated, truncated, infos = rows.step(np.array(step))
        check_observation(observation, byte_tokenizer.pad_token_id)
        for i, (env, action) in enumerate(zip(singles, step, strict=True)):
            own, reward, ends, cut, info = env.step(action)
            assert (rewards[i], terminated[i], truncated[i]) == (reward, ends, cut)
            assert not (ends and cut)
            paid[i].append(reward)
            assert len(paid[i]) <= budget
            last = observation
            if ends or cut:
                last = infos["final_obs"][i]
                np.testing.assert_array_equal(last["input_ids"], own["input_ids"])
                assert np.isclose(sum(paid[i]), info["score"], atol=1e-5)
                assert infos["final_info"]["text"][i] == info["text"]
                assert (len(paid[i]) == budget) or ends
                assert not (cut and given_["budget_is_terminal"])
                paid[i] = []
                own, _ = env.reset()
            for key, value in own.items():
                np.testing.assert_array_equal(observation[key][i], value)


@settings(max_examples=40)
@given(data=st.data(), budget=budgets)
def test_only_the_rows_that_are_asked_for_begin_anew(
    byte_tokenizer: Tokenizer, data: st.DataObject, budget: int
) -> None:
    """Rows that are held, or over, stay as they are; `reset_mask` begins those that it names."""
    rows = TextGenVectorEnv(
        3,
        task=TASK,
        tokenizer=byte_tokenizer,
        reward="length",
        max_new_tokens=budget,
        autoreset_mode=AutoresetMode.DISABLED,
    )
    masks = st.lists(st.booleans(), min_size=3, max_size=3).map(np.array)
    observation, _ = rows.reset(seed=data.draw(st.integers(0, 99)))
    lengths = observation["attention_mask"].sum(1)
    written, held, over = np.zeros(3, int), np.zeros(3, bool), np.zeros(3, bool)
    for _ in range(data.draw(st.integers(0, 8))):
        kind = data.draw(st.sampled_from(["hold", "reset", "step"]))
        mask = data.draw(masks)
        before = observation
        if kind == "hold" and mask.any():
            rows.hold(mask)
            held |= mask
        elif kind == "reset" and mask.any():
            observation, _ = rows.reset(options={"reset_mask": mask})
            lengths = np.where(mask, observation["attention_mask"].sum(1), lengths)
            for state in (written, held, over):
                state[mask] = 0
        elif kind == "step" and not (over & ~held).any():
            tokens = data.draw(st.lists(st.sampled_from([EOS, 98]), min_size=3, max_size=3))
            observation, rewards, terminated, truncated, _ = rows.step(np.array(tokens))
            going_on = ~held
            written += going_on
            ends = going_on & (np.array(tokens) == EOS)
            assert terminated.tolist() == ends.tolist()
            assert truncated.tolist() == (going_on & ~ends & (written == budget)).tolist()
            assert not rewards[held].any()
            over |= terminated | truncated
            mask = going_on
        else:
            continue
        check_observation(observation, byte_tokenizer.pad_token_id)
        assert observation["attention_mask"].sum(1).tolist() == (lengths + written).tolist()
        for key, value in observation.items():
            np.testing.assert_array_equal(value[~mask], before[key][~mask])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 99), rows=st.integers(1, 5), size=st.integers(1, 4), steps=st.integers(0, 6)
)
def test_prompts_come_in_groups_of_their_size(
    byte_tokenizer: Tokenizer, seed: int, rows: int, size: int, steps: int
) -> None:
    """In the order in which episodes begin, `group_size` of them in a row have the same prompt."""
    many = Task("many", {"train": [Example(f"prompt {number}") for number in range(500)]})
    kwargs = {"task": many, "tokenizer": byte_tokenizer, "reward": "length", "max_new_tokens": 2}
    env = TextGenVectorEnv(rows, **kwargs, autoreset_mode=AutoresetMode.SAME_STEP)
    _, infos = env.reset(seed=seed, options={"group_size": size})
    begun = infos["prompt"].tolist()
    for _ in range(steps):
        *_, infos = env.step(np.full(rows, EOS))  # ends all, so that all begin, row by row
        begun += infos["prompt"].tolist()
    groups = [begun[i : i + size] for i in range(0, len(begun), size)]
    assert all(len(set(group)) == 1 for group in groups)


@settings(max_examples=40)
@given(data=st.binary(max_size=16), sizes=st.lists(st.integers(1, 3), min_size=1))
def test_pieces_join_to_the_whole_text(
    byte_tokenizer: Tokenizer, data: bytes, sizes: list[int]
) -> None:
    """Any tokens, also those that are half a character, or end the text in its middle."""
    token_ids = [1 + byte for byte in data]
    for k in sizes:
        token_ids.insert(k % (len(token_ids) + 1), EOS)
    pieces = byte_tokenizer.pieces(np.array([98]), token_ids)
    assert len(pieces) == len(token_ids)
    assert "".join(pieces) == byte_tokenizer.decode(token_ids) == data.decode("utf-8", "replace")
