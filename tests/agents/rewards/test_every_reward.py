"""Every reward that has a name works by it: in Python, in `gym.make` and from a run file."""

import math
import threading

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401  # registers the environments
from agents.config import RunConfig
from agents.run_file import load_config, save_config
from textgym import rewards
from textgym.ratings import RatingServer
from textgym.rewards import make_score
from textgym.rewards.serving import ScoreServer
from textgym.tasks import Example, Task

PARAMETERS = {
    "adaptive": {"rewards": {"sentiment": 1.0, "length": 0.5}, "goals": {"length": 0.5}},
    "regex": {"pattern": r"\w+ing"},
    "schedule": {"reward": "sentiment", "tokens": 64},
    "target_token": {"target": " the"},
    "verifier": {"dataset": "chain_sum"},
}
"""Of those that cannot do without."""

EXAMPLES = {
    "multiple_choice": Example("Which? A, B or C", "B"),
    "numeric_error": Example("4 + 3 =", "7"),
    "verifier": Example("4 + 3 =", "7"),
}
"""For those to which a sentence is no reference."""


@pytest.fixture
def parameters(request, make_classifier, tmp_path):
    """Parameters of a reward, and what they need: a classifier, a person who rates, a server."""

    def parameters(name):
        if name == "classifier":
            return {"model": make_classifier("bert"), "label": "POSITIVE"}
        if name == "toxicity":
            return {"model": make_classifier("bert", labels=("calm", "toxic"))}
        if name == "reward_model":
            return {"model": make_classifier("bert", labels=("reward",))}
        if name == "ratings":
            server = RatingServer(0, tmp_path / "ratings.jsonl")
            threading.Thread(target=server.serve_forever, daemon=True).start()
            request.addfinalizer(server.server_close)
            request.addfinalizer(server.shutdown)
            return {"url": f"{server.url}/rate", "wait": 0, "fallback": 0.0}
        if name == "http":
            server = ScoreServer(make_score("sentiment"), "sentiment", 0)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            request.addfinalizer(server.server_close)
            request.addfinalizer(server.shutdown)
            return {"url": f"{server.url}/score"}
        if name == "ray":
            request.getfixturevalue("local_ray")
            return {"reward": "sentiment", "num_cpus": 0}
        return PARAMETERS.get(name, {})

    return parameters


@pytest.mark.filterwarnings("ignore:reward 'ratings' has no rating")  # asked for
@pytest.mark.parametrize("name", rewards.names())
def test_it_works_by_name(name, parameters, tmp_path):
    given = parameters(name)
    spec = {"length": 0.5, "mine": {"name": name, "weight": 2.0, **given}}
    path = tmp_path / "config.yaml"
    save_config(RunConfig(reward=spec, max_new_tokens=6), path)
    kwargs = load_config(path).env_kwargs()
    assert kwargs["reward"] == spec
    kwargs["task"] = Task("one", {"train": (EXAMPLES.get(name, Example("He", "is a good king")),)})
    envs = gym.make_vec("TextGen-v0", num_envs=3, **kwargs)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    paid = np.zeros(3)
    for _ in range(6):
        _, reward, terminated, _, infos = envs.step(envs.action_space.sample())
        paid += reward
    assert terminated.all()  # nothing ended before: three texts of six tokens
    info = infos if "scores" in infos else infos["final_info"]
    scores = {key: value for key, value in info["scores"].items() if key.startswith("mine")}
    assert scores
    for score in scores.values():
        assert np.isfinite(score).all()
    envs.close()


def test_every_reward_says_what_it_is():
    for reward in rewards.info():
        assert reward.summary.endswith("."), reward.name
        assert 20 < len(reward.summary) < 100, reward.name
        assert reward.score_range is not None, reward.name
        lowest, highest = reward.score_range
        assert lowest < highest, reward.name
        assert not math.isnan(lowest)


def test_every_reward_has_a_measured_cost_unless_it_is_that_of_others():
    without = {reward.name for reward in rewards.info() if reward.cost is None}
    assert without == {"adaptive", "http", "ratings", "ray", "schedule"}
