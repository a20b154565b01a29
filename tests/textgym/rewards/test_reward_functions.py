"""A user's own function, and TRL's, as they stand."""

import asyncio
import functools
from dataclasses import dataclass

import numpy as np
import pytest

from textgym.completion import Sample
from textgym.rewards import RewardError, Score
from textgym.rewards.functions import FunctionScore, TRLScore, from_function, function_name

SAMPLE = Sample("Say it:", "well done", "well", [5, 6, 0], {"level": 3, "answer": "done"})
BARE = Sample("Say it:", "well done", None, [5, 6, 0], {})


def score(function, *samples):
    return from_function(function).score(samples or [SAMPLE])


def of_text(text):
    return len(text)


def scaled(text, scale=2.0):
    return scale * len(text)


class Judge:
    def __init__(self, bonus=0.0):
        self.bonus = bonus

    def rate(self, text):
        return len(text) + self.bonus


@dataclass
class Affine:
    slope: float = 1.0

    def __call__(self, text: str, level: int = 0) -> float:
        return self.slope * len(text) + level


@pytest.mark.parametrize(
    ("function", "expected", "name"),
    [
        (of_text, 9, "of_text"),
        (scaled, 18.0, "scaled"),
        (functools.partial(scaled, scale=3.0), 27.0, "scaled"),
        (len, 9, "len"),
        (lambda x: 2 * len(x), 18, "lambda"),
        (lambda text, /: len(text), 9, "lambda"),
        (lambda: 0, None, "lambda"),
        (Judge(1.0).rate, 10.0, "Judge.rate"),
        (Affine(2.0), 21.0, "Affine"),
        (lambda prompt: len(prompt), 7, "lambda"),
        (lambda text, reference: text.startswith(reference), 1.0, "lambda"),
        (lambda token_ids: sum(token_ids), 11, "lambda"),
        (lambda text, answer: text.endswith(answer), 1.0, "lambda"),
        (lambda text, level=0, other=5: level + other, 8, "lambda"),
        (lambda text, **columns: len(columns), 2, "lambda"),
        (lambda x, **columns: len(x) + columns["level"], 12, "lambda"),
        (lambda text, reference=None: len(reference or ""), 4, "lambda"),
    ],
)
def test_a_function_gets_what_its_parameters_name(function, expected, name):
    assert function_name(function) == name
    if expected is None:
        with pytest.raises(TypeError, match="takes nothing by name"):
            from_function(function)
    else:
        values = score(function)
        assert values == [expected]
        assert type(values[0]) is float


@pytest.mark.parametrize(
    "number",
    [1, 1.0, True, np.float32(1), np.float64(1), np.int8(1), np.bool_(True), np.array(1.0)],
)
def test_a_number_of_any_type_is_a_score(number):
    assert score(lambda text: number) == [1.0]
    assert score(lambda completions: [number] * 2, SAMPLE, BARE) == [1.0, 1.0]


@pytest.mark.parametrize("value", [None, "1.0", [1.0], np.ones(1), np.str_("1"), 1j])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(RewardError, match="expected a number") as error:
        score(lambda text: value)
    assert error.value.sample == SAMPLE


def test_an_optional_reference_may_be_missing_and_a_wanted_one_may_not():
    assert score(lambda text, reference=None: float(reference is None), SAMPLE, BARE) == [0.0, 1.0]
    with pytest.raises(RewardError, match="compares with a reference, and this prompt has none"):
        score(lambda text, reference: 0.0, BARE)


def test_a_parameter_that_nobody_knows_is_named_with_what_there_is():
    with pytest.raises(RewardError, match="has a parameter 'anser', which the task does not") as e:
        score(lambda text, anser: 0.0)
    assert all(known in str(e.value) for known in ("prompt", "token_ids", "level", "answer"))
    with pytest.raises(RewardError, match="has a parameter 'labels'"):
        score(lambda completions, labels: [0.0])


def test_whether_the_token_ids_matter_is_seen_from_the_parameters():
    assert from_function(of_text).text_only
    assert from_function(len).text_only
    assert not from_function(lambda text, token_ids: 0.0).text_only
    assert from_function(lambda prompts, completions: []).text_only
    assert not from_function(lambda completions, **kwargs: []).text_only
    assert not from_function(lambda completions, completion_ids: []).text_only


def test_the_function_says_what_success_is():
    class Graded:
        success_threshold = 3.0

        def __call__(self, text, scale=1.0):
            return scale

    assert from_function(Graded()).success_threshold == 3.0
    assert from_function(functools.partial(Graded(), scale=2.0)).success_threshold == 3.0
    assert from_function(of_text).success_threshold is None


def test_what_hides_its_parameters_is_refused():
    for function in (lambda *args: 0.0, lambda *args, **kwargs: 0.0, lambda **kwargs: 0.0):
        with pytest.raises(TypeError, match=r"takes nothing by name; expected any of .* prompt"):
            from_function(function)


def test_an_async_function_of_one_text_is_told_to_take_a_batch():
    async def rate(text):
        return 1.0

    class Rater:
        async def __call__(self, text):
            return 1.0

    for function in (rate, functools.partial(rate), Rater()):
        with pytest.raises(TypeError, match="let it take a batch"):
            from_function(function)


def test_scores_are_scores():
    assert isinstance(from_function(of_text), FunctionScore)
    assert isinstance(from_function(of_text), Score)
    assert isinstance(from_function(lambda completion_ids: []), TRLScore)
    assert isinstance(from_function(lambda prompts, completions: []), Score)


# TRL's documentation shows reward functions of these shapes.


def reward_ids(completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]


def reward_answer(prompts, completions, answer, **kwargs):
    return [1.0 if a and a in c else 0.0 for c, a in zip(completions, answer, strict=True)]


def reward_some(completions, level, log_metric, log_extra, trainer_state, **kwargs):
    log_extra("level", level)
    log_metric("levels", len(level))
    assert trainer_state is None
    return [None if value is None else float(value) for value in level]


async def reward_async(prompts, completions, **kwargs):
    await asyncio.sleep(0.001)
    return [float(len(c)) for c in completions]


class AsyncJudge:
    async def __call__(self, completions, **kwargs):
        return [1.0 for _ in completions]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (reward_ids, [3.0, 3.0]),
        (reward_answer, [1.0, 0.0]),
        (reward_some, [3.0, 0.0]),
        (reward_async, [9.0, 9.0]),
        (AsyncJudge(), [1.0, 1.0]),
        (lambda completions, reference: [float(r == "well") for r in reference], [1.0, 0.0]),
        (lambda completions: np.array([1, 2]), [1.0, 2.0]),
    ],
)
def test_a_trl_function_works_as_it_stands(function, expected):
    values = score(function, SAMPLE, BARE)
    assert values == expected
    assert {type(value) for value in values} == {float}


def test_an_async_function_works_inside_a_running_loop():
    trl = from_function(reward_async)

    async def notebook_cell():
        return trl.score([SAMPLE])

    assert asyncio.run(notebook_cell()) == [9.0]


def test_what_an_async_function_opened_is_still_good_at_its_next_call():
    loops = set()

    async def rate(completions):
        loops.add(asyncio.get_running_loop())
        return [0.0] * len(completions)

    trl = from_function(rate)
    trl.score([SAMPLE])
    trl.score([SAMPLE])
    assert len(loops) == 1
    assert not loops.pop().is_closed()


@pytest.mark.parametrize("returned", [0.5, None, [0.5], [[0.5], [0.5]], "ab"])
def test_a_trl_function_returns_a_number_for_each(returned):
    with pytest.raises(RewardError, match="expected a"):
        score(lambda completions: returned, SAMPLE, BARE)
