import gymnasium as gym
import numpy as np
import pytest

from textgym import TextGenEnv
from textgym.tasks import Example, Task

TASK = Task("letters", {"train": [Example(f"{letter}b") for letter in "acdefgh"]})
TEMPLATES = ("{prompt}", "h{prompt}", "hh{prompt}j")


@pytest.fixture
def kwargs(tiny_tokenizer_dir):
    return {
        "task": TASK,
        "tokenizer": tiny_tokenizer_dir,
        "templates": TEMPLATES,
        "max_new_tokens": 2,
        "reward": lambda text: float(len(text)),
    }


def text_of(env, observation):
    return env.tokenizer.decode(observation["input_ids"][: observation["attention_mask"].sum()])


def test_the_agent_sees_the_template_and_the_reward_does_not(kwargs):
    seen = []

    def reward(prompt, text):
        seen.append(prompt)
        return 0.0

    env = TextGenEnv(**{**kwargs, "reward": reward, "templates": ["hh{prompt}j"]})
    observation, info = env.reset(options={"prompt": "a"})
    assert text_of(env, observation) == "hhaj"
    assert info == {"prompt": "a", "template": 0}
    env.step(1)
    *_, info = env.step(1)
    assert set(seen) == {"a"}
    assert info["template"] == 0
    assert info["prompt"] == "a"


def test_all_templates_are_drawn_and_the_longest_fits(kwargs):
    env = TextGenEnv(**kwargs)
    assert env.observation_space["input_ids"].shape == (7,)
    drawn = {}
    for seed in range(60):
        observation, info = env.reset(seed=seed)
        drawn[info["template"]] = text_of(env, observation)
    assert sorted(drawn) == [0, 1, 2]
    assert drawn[2].startswith("hh")


def test_chosen_prompts_take_turns(kwargs):
    env = TextGenEnv(**kwargs)
    for index in range(6):
        _, info = env.reset(options={"prompt_index": index})
        assert info["template"] == index % 3


@pytest.mark.parametrize("selection", ["uniform", "bandit"])
def test_a_seed_repeats_the_draws_as_long_as_nothing_was_learned(kwargs, selection):
    env = TextGenEnv(**{**kwargs, "prompts": selection})
    drawn = [[env.reset(seed=s)[1]["template"] for s in range(20)] for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_a_template_leaves_what_stands_around_the_prompt(byte_tokenizer):
    for task, end in (("game", "\nAssistant:"), ("dialogue", "\n")):
        for template, begin in (("{prompt}", ""), ("Hm. {prompt}", "Hm. ")):
            env = TextGenEnv(task=task, tokenizer=byte_tokenizer, templates=[template])
            observation, info = env.reset(seed=0)
            text = text_of(env, observation)
            assert text.endswith(end)
            assert len(text) == len(info["prompt"]) + len(begin)


def test_a_prompt_that_is_asked_for_needs_what_the_first_template_needs(kwargs):
    task = Task("levels", {"train": [Example("ab", columns={"level": "c"})]})
    env = TextGenEnv(**{**kwargs, "task": task, "templates": ["h{prompt}", "{level}{prompt}"]})
    observation, info = env.reset(options={"prompt": "a"})
    assert text_of(env, observation) == "ha"
    assert info["template"] == 0


def test_without_templates_nothing_is_said_of_them(kwargs):
    env = TextGenEnv(**{**kwargs, "templates": None})
    _, info = env.reset(seed=0)
    assert "template" not in info
    assert env.template_bandit() is None
    assert env.template_state() == {}


def test_a_task_brings_templates_and_they_can_be_left_out(kwargs):
    task = Task("letters", TASK.splits, templates=("hh{prompt}",))
    env = TextGenEnv(**{**kwargs, "task": task, "templates": None})
    assert text_of(env, env.reset(options={"prompt": "a"})[0]) == "hha"
    env = TextGenEnv(**{**kwargs, "task": task, "templates": ()})
    assert text_of(env, env.reset(options={"prompt": "a"})[0]) == "a"


@pytest.mark.parametrize("selection", ["bandit", "ucb", {"name": "thompson", "discount": 0.99}])
def test_the_bandit_finds_the_planted_template(kwargs, selection):
    """An agent that writes more after one of the templates, and a reward of what is written."""
    envs = gym.make_vec(
        "TextGen-v0", num_envs=16, prompts=selection, autoreset_mode="SameStep", **kwargs
    )
    observations, _ = envs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        begins_well = observations["input_ids"][:, 0] == envs.unwrapped.tokenizer.encode("hh")[0]
        ends_well = (observations["input_ids"] == envs.unwrapped.tokenizer.encode("j")[0]).any(1)
        # Token 0 ends a text; after the third template the agent hardly ever does so.
        ends = rng.random(16) < np.where(begins_well & ends_well, 0.1, 0.6)
        observations, *_ = envs.step(np.where(ends, 0, 1))
    bandit = envs.unwrapped.template_bandit()
    assert bandit.best == 2
    counts = [arm.count for arm in bandit.arms]
    assert counts[2] > 2 * max(counts[:2])
    assert sum(bandit.pending) == 16


def test_what_is_learned_can_be_saved(kwargs):
    import json

    env = TextGenEnv(**{**kwargs, "prompts": "bandit"})
    env.reset(seed=0)
    env.step(0)
    state = json.loads(json.dumps(env.template_state()))
    other = TextGenEnv(**{**kwargs, "prompts": "bandit"})
    other.load_template_state(state)
    assert [arm.count for arm in other.template_bandit().arms].count(1) == 1
    fewer = TextGenEnv(**{**kwargs, "prompts": "bandit", "templates": TEMPLATES[:2]})
    with pytest.raises(ValueError, match="3 arms"):
        fewer.load_template_state(state)


def test_an_episode_given_up_is_forgotten(kwargs):
    env = TextGenEnv(**{**kwargs, "prompts": "ucb"})
    for _ in range(10):
        env.reset()
    bandit = env.template_bandit()
    assert sum(bandit.pending) == 1
    assert not any(arm.count for arm in bandit.arms)
    for _ in range(5):
        env.reset(options={"prompt": "a"})  # chosen by somebody else
    assert sum(bandit.pending) == 0
    env.step(0)
    assert not any(arm.count for arm in bandit.arms)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"templates": ["no place"]}, ValueError, "has no {prompt}"),
        ({"templates": ["{prompt} {level}"]}, ValueError, "uses the column 'level'"),
        ({"templates": "{prompt}"}, TypeError, "templates is a list of non-empty strings"),
        ({"prompts": "best"}, ValueError, "no bandit named 'best'"),
        ({"templates": None, "prompts": "best"}, ValueError, "no bandit named 'best'"),
        ({"templates": None, "prompts": "bandit"}, ValueError, "and there are none"),
    ],
)
def test_what_is_refused(kwargs, change, error, message):
    with pytest.raises(error, match=message):
        TextGenEnv(**{**kwargs, **change})
