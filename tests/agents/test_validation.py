"""The best model by validation, with a judge that says what it is told to say."""

import json

import numpy as np
import pytest

from agents.episodes import Episode
from agents.validation import Best, Validation, best_template
from textgym import TextGenEnv


@pytest.fixture
def process(tiny_tokenizer_dir):
    return TextGenEnv(
        task={"name": "target_token", "targets": ["a"]},
        tokenizer=tiny_tokenizer_dir,
        templates=["{prompt}", "h{prompt}"],
        prompts="bandit",
    ).process


@pytest.fixture
def look(make_token_ppo, process, tmp_path):
    """Trains for a few rollouts of 64 tokens; returns what was saved, and the callback."""

    def run(scores, every=64, rollouts=3, interrupt_at=None, algorithm=None):
        algorithm = algorithm or make_token_ppo()
        said, saved = iter(scores), []

        def judge(templates):
            score = next(said)
            if score is None:
                raise KeyboardInterrupt
            return [Episode("a", "b", [1], [score], {"it": score}, score, success=score > 1)]

        def save():
            if algorithm.num_timesteps == interrupt_at:
                raise KeyboardInterrupt
            saved.append(algorithm.num_timesteps)

        callback = Validation(
            judge, lambda: best_template(process), save, tmp_path / "best.json", every
        )
        algorithm.learn(
            rollouts * 64, callback=callback, reset_num_timesteps=algorithm.num_timesteps == 0
        )
        return saved, callback

    return run


def test_a_model_is_saved_when_it_is_the_best(look, tmp_path):
    saved, callback = look([0.5, 0.4, 0.6])
    assert saved == [64, 192]
    assert callback.best == Best(192, 0.6)
    assert Best.load(tmp_path / "best.json") == callback.best


def test_of_equals_the_first_is_kept(look):
    assert look([0.5, 0.5, 0.5])[0] == [64]


def test_looks_are_as_far_apart_as_they_are_wanted(look):
    assert look([0.1, 0.2], every=128)[0] == [128, 192]
    assert look([0.1], every=10_000)[0] == [192]


def test_an_interrupt_while_saving_leaves_no_best_without_a_model(look, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        look([0.5], interrupt_at=64)
    assert not (tmp_path / "best.json").exists()


def test_an_interrupt_while_saving_leaves_the_record_of_the_model_before(look, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        look([0.5, 0.6], interrupt_at=128)
    assert Best.load(tmp_path / "best.json") == Best(64, 0.5)


def test_a_run_that_goes_on_makes_up_for_a_look_that_was_interrupted(look, make_token_ppo):
    algorithm = make_token_ppo()
    with pytest.raises(KeyboardInterrupt):
        look([0.5, 0.4, None], algorithm=algorithm)
    saved, callback = look([0.9], rollouts=0, algorithm=algorithm)
    assert saved == [192]
    assert callback.best == Best(192, 0.9)


def test_what_was_best_stays_so_in_a_run_that_goes_on(look, make_token_ppo):
    algorithm = make_token_ppo()
    look([0.5, 0.9, 0.4], algorithm=algorithm)
    saved, callback = look([0.8, 0.7, 0.6], rollouts=1, algorithm=algorithm)
    assert saved == []
    assert callback.best == Best(128, 0.9)


def test_templates_that_are_judged_are_those_that_can_be_told_apart(process):
    assert best_template(process) is None
    bandit, rng = process.prompts.selection, np.random.default_rng(0)
    for _ in range(4):
        for arm in range(2):
            bandit.update(arm, arm + rng.random())
    assert best_template(process) is None
    for _ in range(20):
        for arm in range(2):
            bandit.update(arm, arm + rng.random())
    assert best_template(process) == ("h{prompt}",)


def test_the_best_can_be_read_again(tmp_path):
    path = tmp_path / "best.json"
    best = Best(64, 0.25, ("So: {prompt}",))
    best.save(path)
    assert Best.load(path) == best
    path.write_text(json.dumps({"timesteps": 64, "score": 0.25}))
    assert Best.load(path) == Best(64, 0.25)
