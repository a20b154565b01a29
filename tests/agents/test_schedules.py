import math
import pickle
from dataclasses import dataclass
from typing import get_args

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from agents import schedules
from agents.schedules import EXPLORE_THEN_EXPLOIT, Linear, ScheduleSpec, Stages, final, initial

numbers = st.floats(-1e6, 1e6)
unit = st.floats(0, 1)


@given(start=numbers, end=numbers, fraction=st.floats(1e-3, 1), progress_remaining=unit)
def test_linear_is_that_of_stable_baselines(start, end, fraction, progress_remaining):
    got = Linear(start, end, fraction)(progress_remaining)
    expected = LinearSchedule(start, end, fraction)(progress_remaining)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(start=numbers, end=numbers, fraction=st.floats(1e-3, 1), after=unit)
def test_linear_goes_from_its_start_to_its_end_and_stays(start, end, fraction, after):
    linear = Linear(start, end, fraction)
    assert linear(1.0) == start
    remaining = (1 - fraction) * after
    assert linear(remaining) == end
    assert linear(0.0) == end
    low, high = sorted((start, end))
    assert low - 1e-6 <= linear(after) <= high + 1e-6


def test_linear_is_half_way_at_half_of_its_fraction():
    assert Linear(1.0, 0.0)(0.5) == 0.5
    assert Linear(1.3, 0.7, 0.5)(0.75) == pytest.approx(1.0)


def test_stages_change_once():
    stages = Stages(1.3, 0.7, 0.25)
    assert [stages(r) for r in (1.0, 0.9, 0.751)] == [1.3] * 3
    assert [stages(r) for r in (0.75, 0.5, 0.0)] == [0.7] * 3


@pytest.mark.parametrize("total", [10, 100, 40_960])
@pytest.mark.parametrize("tenths", range(1, 10))
def test_stages_change_at_the_token_that_they_say(total, tenths):
    # As SB3 computes what remains of a run.
    def at(timesteps):
        return Stages(1.0, 2.0, tenths / 10)(1.0 - timesteps / total)

    change = math.ceil(total * tenths / 10)
    assert at(change - 1) == 1.0
    assert at(change) == 2.0


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (0.7, 0.7),
        (1, 1.0),
        ("0.7", 0.7),
        ("1e-4", 1e-4),
        ("linear:1.3:0.7", Linear(1.3, 0.7)),
        ("linear:1e-4:0:0.5", Linear(1e-4, 0.0, 0.5)),
        ("stages:1.3:0.7", Stages(1.3, 0.7, 0.5)),
        ("stages:2:1:0.25", Stages(2.0, 1.0, 0.25)),
        ("explore-then-exploit", EXPLORE_THEN_EXPLOIT),
    ],
)
def test_specs(spec, expected):
    made = schedules.make(spec)
    assert made == expected
    assert isinstance(made, float if isinstance(expected, float) else type(expected))
    assert schedules.make(made) == made
    assert isinstance(spec, get_args(ScheduleSpec)) or spec == 1


def test_any_schedule_of_stable_baselines_is_one():
    schedule = LinearSchedule(1.0, 0.5, 1.0)
    assert schedules.make(schedule) is schedule
    assert (initial(schedule), final(schedule)) == (1.0, 0.5)


def test_first_and_last_values():
    for spec, first, last in [
        (0.7, 0.7, 0.7),
        ("linear:1.3:0.7:0.2", 1.3, 0.7),
        (Stages(2.0, 1.0), 2.0, 1.0),
        ("explore-then-exploit", EXPLORE_THEN_EXPLOIT.first, EXPLORE_THEN_EXPLOIT.then),
    ]:
        assert (initial(spec), final(spec)) == (first, last)
    assert EXPLORE_THEN_EXPLOIT.first > EXPLORE_THEN_EXPLOIT.then > 0


@pytest.mark.parametrize("schedule", [Linear(1.0, 0.5), Stages(1.0, 0.5)])
def test_they_are_pickled_compared_and_taken_by_stable_baselines(schedule):
    copy = pickle.loads(pickle.dumps(schedule))
    assert copy == schedule
    assert hash(copy) == hash(schedule)
    assert FloatSchedule(schedule)(0.0) == 0.5


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("linear:1", ValueError, r"'linear:1' is no schedule: .*linear:START:END\[:FRACTION\]"),
        ("linear", ValueError, "'linear' is no schedule"),
        ("linear:1:2:0.5:1", ValueError, "'linear:1:2:0.5:1' is no schedule"),
        ("linear:a:2", ValueError, r"'linear:a:2' is no linear:START:END\[:FRACTION\]: .*'a'"),
        ("linear:1:2:0", ValueError, "above 0 and at most 1, got 0.0"),
        ("linear:1:2:1.5", ValueError, "above 0 and at most 1, got 1.5"),
        ("linear:1:nan", ValueError, "no finite number: nan"),
        ("stages:1:2:1", ValueError, r"no stages:FIRST:THEN\[:FRACTION\]: .*below 1, got 1.0"),
        ("stages:1:2:nan", ValueError, "below 1, got nan"),
        ("cosine:1:2", ValueError, "'cosine:1:2' is no schedule: .*'linear:1.3:0.7'"),
        ("explore-exploit", ValueError, "did you mean 'explore-then-exploit'"),
        ("", ValueError, "'' is no number and no schedule"),
        ("inf", ValueError, "finite number, got inf"),
        (math.nan, ValueError, "finite number, got nan"),
        (True, TypeError, "a number or a schedule, such as 0.7.*got True"),
        (None, TypeError, "a number or a schedule, such as 0.7.*got None"),
        ([1.0], TypeError, r"got \[1.0\]"),
    ],
)
def test_what_is_no_schedule_is_refused(spec, error, message):
    with pytest.raises(error, match=message):
        schedules.make(spec)


@dataclass(frozen=True)
class Settings:
    temperature: ScheduleSpec = 1.0
    """Divides the logits."""


@pytest.mark.parametrize(
    ("word", "expected"),
    [("0.7", 0.7), ("2", 2.0), ("linear:1.3:0.7", "linear:1.3:0.7")],
)
def test_the_command_line_takes_numbers_and_schedules(word, expected):
    got = tyro.cli(Settings, args=["--temperature", word]).temperature
    assert (got, type(got)) == (expected, type(expected))


def test_the_help_says_that_both_are_taken(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Settings, args=["--help"])
    assert "--temperature FLOAT|STR" in capsys.readouterr().out
