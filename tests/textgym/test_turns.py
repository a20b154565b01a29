from functools import partial

import gymnasium as gym
import numpy as np
import pytest

from textgym import TextGenEnv, TextGenVectorEnv
from textgym.checks import check_vector_env
from textgym.tasks import Example, Task
from textgym.tasks.game import game


class Echo:
    """Says what the model said, in capitals, until it says "bye"."""

    max_turns = 3
    longest_reply = "ABCDEF"

    def reply(self, example, turns):
        return None if turns[-1] == "bye" else turns[-1].upper()


def number_of_turns(text, turns):
    return float(len(turns))


TASK = Task(
    "echo",
    {"train": [Example("User: go\nAssistant:")]},
    reward=number_of_turns,
    stop=("\n",),
    interaction=Echo(),
)


@pytest.fixture
def env(byte_tokenizer):
    return TextGenEnv(task=TASK, tokenizer=byte_tokenizer, max_new_tokens=16, render_mode="ansi")


def play(env, *turns):
    """Writes these texts; returns the rewards, the last observation and the last info."""
    rewards = []
    for turn in turns:
        for token in env.tokenizer.encode_plain(turn):
            observation, reward, terminated, truncated, info = env.step(token)
            rewards.append(reward)
    return rewards, observation, terminated, truncated, info


def context(env, observation):
    return env.tokenizer.decode(observation["input_ids"][: observation["attention_mask"].sum()])


def test_the_other_side_answers_between_turns(env):
    env.reset(seed=0)
    rewards, observation, terminated, *_ = play(env, "ab\n")
    assert rewards == [0, 0, 1]  # what is said by others earns nothing
    assert not terminated
    assert context(env, observation) == "User: go\nAssistant:ab\nUser: AB\nAssistant:"
    rewards, observation, terminated, _, info = play(env, "cd\n", "bye\n")
    assert rewards == [0, 0, 1, 0, 0, 0, 1]
    assert terminated
    assert info["text"] == "ab\ncd\nbye\n"
    assert info["replies"] == [(3, "AB"), (6, "CD")]
    assert info["score"] == 3
    assert context(env, observation).endswith("Assistant:cd\nUser: CD\nAssistant:bye\n")
    assert "AB" in env.render()
    assert "User: AB" not in info["text"]


def test_the_end_of_text_ends_a_turn(env):
    env.reset(seed=0)
    play(env, "ab")
    observation, reward, terminated, *_ = env.step(0)
    assert reward == 1
    assert not terminated
    assert env.process.completions.text(0) == "ab\n"
    assert context(env, observation).endswith("ab\nUser: AB\nAssistant:")


def test_turns_are_counted_and_the_budget_is_for_all_of_them(env):
    env.reset(seed=0)
    *_, terminated, truncated, info = play(env, "a\n", "b\n", "c\n")
    assert terminated  # three turns, after which nobody asks for an answer
    assert info["replies"] == [(2, "A"), (4, "B")]
    env.reset()
    *_, terminated, truncated, info = play(env, "abcdefg\n", "abcdefgh")
    assert (terminated, truncated) == (False, True)
    assert info["text"] == "abcdefg\nabcdefgh"
    assert info["score"] == 1  # the turn that was cut is not over
    assert len(env.process.completions.token_ids(0)) == 16


def test_an_answer_without_room_cuts_the_episode(byte_tokenizer):
    class Wordy(Echo):
        def reply(self, example, turns):
            return "x" * 200

    env = TextGenEnv(
        task=Task("wordy", TASK.splits, reward=number_of_turns, stop=("\n",), interaction=Wordy()),
        tokenizer=byte_tokenizer,
        max_new_tokens=16,
    )
    env.reset(seed=0)
    *_, terminated, truncated, info = play(env, "a\n")
    assert (terminated, truncated) == (False, True)
    assert info["score"] == 1


class Understated(Echo):
    """Answers with more than it said that it would."""

    longest_reply = "A"

    def reply(self, example, turns):
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_an_answer_that_is_longer_than_said_stays_in_its_row(byte_tokenizer):
    task = Task("long", TASK.splits, number_of_turns, stop=("\n",), interaction=Understated())
    envs = TextGenVectorEnv(3, task=task, tokenizer=byte_tokenizer, max_new_tokens=16)
    observations, _ = envs.reset(seed=0)
    prompt = observations["input_ids"][1, : observations["attention_mask"][1].sum()]
    line_end, letter = byte_tokenizer.encode("\na")
    for step in range(16):
        first = line_end if step == 0 else letter
        observations, _, _, truncated, infos = envs.step(np.array([first, letter, letter]))
        np.testing.assert_array_equal(observations["input_ids"][1, : len(prompt)], prompt)
        if truncated.any():
            break
    assert truncated.tolist() == [True, False, False]
    assert step < 15  # before its budget was spent
    assert infos["replies"][0] == [(1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")]


@pytest.mark.parametrize(
    ("attribute", "value"), [("max_turns", "2"), ("max_turns", 0), ("longest_reply", None)]
)
def test_an_other_side_that_does_not_say_what_it_needs(byte_tokenizer, attribute, value):
    other_side = type("Vague", (Echo,), {attribute: value})()
    task = Task("vague", TASK.splits, number_of_turns, interaction=other_side)
    with pytest.raises(TypeError, match="max_turns, a whole number of at least 1, and longest_rep"):
        TextGenEnv(task=task, tokenizer=byte_tokenizer)


def test_an_answer_that_is_no_text(byte_tokenizer):
    other_side = type("Number", (Echo,), {"reply": lambda self, example, turns: 5})()
    task = Task("five", TASK.splits, number_of_turns, stop=("\n",), interaction=other_side)
    env = TextGenEnv(task=task, tokenizer=byte_tokenizer)
    env.reset(seed=0)
    with pytest.raises(TypeError, match=r"gave 5 \(int\) after \['a'\]; expected a string"):
        play(env, "a\n")


def test_people_see_each_answer_once(byte_tokenizer, capsys):
    env = TextGenEnv(task=TASK, tokenizer=byte_tokenizer, max_new_tokens=16, render_mode="human")
    env.reset(seed=0)
    play(env, "ab\n", "cd\n", "bye\n")
    shown = capsys.readouterr().out
    assert shown.count("AB") == shown.count("CD") == 1


def test_a_new_episode_forgets_the_turns(env):
    env.reset(seed=0)
    play(env, "ab\n", "c")
    env.reset()
    rewards, *_ = play(env, "d\n")
    assert env.process.completions.text(0) == "d\n"
    assert rewards == [0, 1]
    assert env.process.completions.sample(0).turns == ["d"]


def test_pieces_and_tokens_are_the_models(env):
    env.reset(seed=0)
    play(env, "hé\n", "x")
    completions = env.process.completions
    assert "".join(completions.pieces(0)) == completions.text(0) == "hé\nx"
    assert env.tokenizer.decode(completions.token_ids(0)) == "hé\nx"
    assert completions.lengths(np.array([0])).tolist() == [5]
    assert completions.sample(0).token_ids == completions.token_ids(0).tolist()


def test_the_vector_environment_plays_as_single_ones_do(byte_tokenizer_dir):
    arguments = {"task": TASK, "tokenizer": byte_tokenizer_dir, "max_new_tokens": 60}
    # Random bytes end a line now and then: turns and answers of all sorts.
    check_vector_env(
        partial(gym.make_vec, "TextGen-v0", stop=["\n", "a", "e", "0"], **arguments),
        partial(gym.make, "TextGen-v0", stop=["\n", "a", "e", "0"], **arguments),
        num_steps=150,
    )


class TestGame:
    @pytest.fixture
    def env(self, byte_tokenizer):
        env = TextGenEnv(task="game", tokenizer=byte_tokenizer, max_new_tokens=24)
        env.reset(seed=0)
        return env

    def test_splits_share_no_range(self):
        task = game()
        ranges = {
            split: {(e.columns["low"], e.columns["high"]) for e in examples}
            for split, examples in task.splits.items()
        }
        assert not ranges["train"] & ranges["test"]
        assert not ranges["train"] & ranges["validation"]
        assert game(seed=1) != task == game()

    def test_it_is_won_by_halving(self, env):
        example = env.process.completions.examples[0]
        low, high = example.columns["low"], example.columns["high"]
        number = int(example.reference)
        paid = 0.0
        for turn in range(4):
            guess = (low + high) // 2
            rewards, observation, terminated, _, info = play(env, f"{guess}\n")
            paid += sum(rewards)
            if guess == number:
                assert terminated
                assert info["is_success"]
                assert paid == pytest.approx(1 - 0.5 * turn / 4)
                return
            answer = context(env, observation).rsplit("User: ")[-1]
            assert answer.startswith("Higher." if guess < number else "Lower.")
            low, high = (guess + 1, high) if guess < number else (low, guess - 1)
        pytest.fail("four guesses are enough for the range of this seed")

    def test_what_is_no_number_earns_nothing(self, env):
        rewards, observation, terminated, *_ = play(env, "dunno\n")
        assert not any(rewards)
        assert not terminated
        assert "Give a number from" in context(env, observation)

    def test_scores_of_hand(self):
        (closeness,) = game(max_turns=4).reward.values()
        range_of_ten = {"reference": "7", "low": 1, "high": 11}
        assert closeness("", [], **range_of_ten) == 0
        assert closeness("2\n", ["2"], **range_of_ten) == pytest.approx(0.25)
        assert closeness("", ["2", "none", "9"], **range_of_ten) == pytest.approx(0.4)
        assert closeness("", ["2", "7"], **range_of_ten) == pytest.approx(0.875)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"max_turns": 0}, "max_turns is a whole number of at least 1, got 0"),
            ({"num_games": "many"}, "num_games is a whole number"),
            ({"highest": 3}, "highest is a whole number of at least 4, got 3"),
            ({"test_fraction": 1.0}, "fractions"),
        ],
    )
    def test_what_is_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            game(**arguments)
