"""What is written, and what is noted of it, is what stock PPO would have noted."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecMonitor, VecNormalize

import textgym
from agents import TokenPPO, TransformerPolicy, VectorEnvBridge
from agents.rollout import Rollout
from agents.sampler import Sampler
from agents.sampling import Sampling

gym.register_envs(textgym)

N_STEPS = 16
SAME_STEP = gym.vector.AutoresetMode.SAME_STEP


class Conversation(gym.Env):
    """A text to which another party adds, too, whenever the token 3 is written."""

    def __init__(self):
        self.observation_space = gym.spaces.Dict(
            input_ids=gym.spaces.Box(0, 10, (12,), np.int64),
            attention_mask=gym.spaces.Box(0, 1, (12,), np.int8),
        )
        self.action_space = gym.spaces.Discrete(11)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.text = self.np_random.integers(1, 11, size=self.np_random.integers(1, 5)).tolist()
        return self._observation(), {}

    def step(self, action):
        self.text.append(int(action))
        if action == 3:
            self.text += [7, 8, 9]
        terminated = bool(action == 0)
        truncated = len(self.text) > 8 and not terminated
        return self._observation(), float(action) / 10, terminated, truncated, {}

    def _observation(self):
        ids, mask = np.zeros(12, np.int64), np.zeros(12, np.int8)
        ids[: len(self.text)], mask[: len(self.text)] = self.text, 1
        return {"input_ids": ids, "attention_mask": mask}


class OtherEnds(VecEnvWrapper):
    """Shows the text of an episode that ended otherwise than it was written."""

    def __init__(self, venv, change):
        super().__init__(venv)
        self.change = change

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        observations, rewards, dones, infos = self.venv.step_wait()
        for row in dones.nonzero()[0]:
            shown = {key: x.copy() for key, x in infos[row]["terminal_observation"].items()}
            last = int(shown["attention_mask"].sum()) - 1
            if self.change == "another token":
                shown["input_ids"][last] = 5
            else:
                shown["attention_mask"][last] = 0
                if self.change == "a token less":
                    shown["input_ids"][last] = 0
            infos[row] = {**infos[row], "terminal_observation": shown}
        return observations, rewards, dones, infos


def make_env(kind, n, kwargs):
    if kind == "conversation":
        env = DummyVecEnv([Conversation] * n)
    elif kind in ("one by one", "monitored", "single"):
        env = DummyVecEnv([lambda: gym.make("TextGen-v0", **kwargs)] * n)
    elif kind == "cut from outside":
        make = {"max_episode_steps": 3, **kwargs}
        env = DummyVecEnv([lambda: gym.make("TextGen-v0", **make)] * n)
    else:
        env = gym.make_vec("TextGen-v0", n, autoreset_mode=SAME_STEP, **kwargs)
        env = VectorEnvBridge(env)
    if kind == "monitored":
        env = VecMonitor(env)
    if kind == "normalized":
        env = VecNormalize(VecMonitor(env), norm_obs=False)
    if kind in ("another token", "a token less", "a shorter mask"):
        env = OtherEnds(env, kind)
    env.seed(0)
    return env


@pytest.fixture
def both(make_model, text_kwargs, prescribe):
    """Stock PPO and TokenPPO with equal weights and environments, who will write the same."""

    def make(kind, n_envs=3, seed=0, **settings):
        script = np.random.default_rng(seed).integers(11, size=(2 * N_STEPS, n_envs))
        prescribe(script)
        pair = []
        for algorithm in (PPO, TokenPPO):
            torch.manual_seed(0)
            pair.append(
                algorithm(
                    TransformerPolicy,
                    make_env(kind, n_envs, text_kwargs),
                    n_steps=N_STEPS,
                    batch_size=N_STEPS * n_envs,
                    policy_kwargs={"model": make_model(vocab_size=11)},
                    **{"gamma": 0.97, "gae_lambda": 0.9, **settings},
                )
            )
        return pair

    return make


def rollouts(algorithm, shake):
    """Two rollouts, one after the other, with other weights for each."""
    _, callback = algorithm._setup_learn(1000)
    for update in range(2):
        shake(algorithm.policy, update)
        buffer = algorithm.rollout_buffer
        assert algorithm.collect_rollouts(algorithm.env, callback, buffer, N_STEPS)
        yield buffer


def assert_same(buffer, stock):
    """Equal numbers; and the segments tell the texts of all observations."""
    assert (buffer.actions == stock.actions[..., 0]).all()
    assert (buffer.episode_starts == stock.episode_starts).all()
    for name in ("values", "log_probs", "rewards", "advantages", "returns"):
        got, expected = getattr(buffer, name), getattr(stock, name)
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5, err_msg=name)
    seen = np.zeros(buffer.actions.shape, int)
    lengths = stock.observations["attention_mask"].sum(-1).astype(int)
    for segment in buffer.segments:
        for step in range(segment.begin, segment.end):
            written = buffer.actions[segment.begin : step, segment.row].tolist()
            text = stock.observations["input_ids"][step, segment.row, : lengths[step, segment.row]]
            assert segment.context.tolist() + written == text.tolist()
            seen[step, segment.row] += 1
    assert (seen == 1).all()


def compare(pair, shake):
    stock, ours = pair
    for expected, got in zip(rollouts(stock, shake), rollouts(ours, shake), strict=True):
        assert_same(got, expected)
    assert stock.num_timesteps == ours.num_timesteps
    for one, other in zip(stock.ep_info_buffer, ours.ep_info_buffer, strict=True):
        assert (one["l"], one["r"]) == (other["l"], pytest.approx(other["r"], abs=1e-6))


KINDS = [
    "native",
    "one by one",
    "monitored",
    "normalized",
    "conversation",
    "cut from outside",
    "another token",
    "a token less",
    "a shorter mask",
]


@pytest.mark.parametrize("kind", KINDS)
def test_two_rollouts_are_those_of_stock_ppo(both, shake, kind):
    compare(both(kind), shake)


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_end_in_all_ways_in_these_tests(text_kwargs, kind):
    """By a token, by the budget, and with the rollout; prompts are of different lengths."""
    env = make_env(kind, 3, text_kwargs)
    lengths = {*env.reset()["attention_mask"].sum(1).tolist()}
    ends = {True: 0, False: 0}
    for actions in np.random.default_rng(0).integers(11, size=(2 * N_STEPS, 3)):
        observations, _, dones, infos = env.step(actions)
        for row in dones.nonzero()[0]:
            ends[infos[row]["TimeLimit.truncated"]] += 1
            lengths.add(observations["attention_mask"][row].sum())
    assert min(ends.values()) > 2
    assert len(lengths) > 2
    assert not dones.all()


@pytest.mark.parametrize(
    ("n_envs", "budget_is_terminal", "settings"),
    [
        (1, False, {"gamma": 1.0}),
        (4, False, {"gamma": 1.0, "gae_lambda": 1.0}),
        (4, True, {"gamma": 1.0, "gae_lambda": 0.0}),
        (1, True, {"gamma": 0.5}),
    ],
)
def test_with_any_discount_and_number_of_rows(
    both, shake, text_kwargs, n_envs, budget_is_terminal, settings
):
    text_kwargs["budget_is_terminal"] = budget_is_terminal
    compare(both("native", n_envs, seed=1, **settings), shake)


def test_with_a_temperature(both, shake):
    stock, ours = both("native")
    for algorithm in (stock, ours):
        algorithm.policy.sampling = Sampling(temperature=0.5)
        algorithm.policy.mlp_extractor._sampling = algorithm.policy.sampling
    compare((stock, ours), shake)


def test_a_rollout_may_be_a_single_step(text_kwargs, make_model):
    env = make_env("native", 2, text_kwargs)
    model = {"model": make_model(vocab_size=11)}
    ours = TokenPPO(TransformerPolicy, env, n_steps=1, batch_size=None, policy_kwargs=model)
    ours.learn(20)
    assert ours.num_timesteps == 20


# On its own


@pytest.fixture
def make_rollout(make_model, shake, text_kwargs):
    def make(env, **settings):
        policy = TransformerPolicy(
            env.observation_space,
            env.action_space,
            lambda _: 1e-3,
            model=make_model(vocab_size=11),
        )
        sampler = Sampler(shake(policy), env.num_envs)
        return Rollout(sampler, env, env.reset(), **settings), policy

    return make


def expected_of(policy, step, rows):
    """Values and log-probabilities of a step, by the policy's own reading of its observations."""
    with torch.no_grad():
        values, log_probs, _ = policy.evaluate_actions(
            obs_as_tensor({key: x[rows] for key, x in step.observations.items()}, "cpu"),
            torch.from_numpy(step.actions[rows]),
        )
    return values[:, 0].numpy(), log_probs.numpy()


def test_rows_that_are_left_out_are_not_computed(make_rollout, text_kwargs):
    env = make_env("native", 5, text_kwargs)
    rollout, policy = make_rollout(env)
    read = []
    embedding = policy.backbone.model.get_input_embeddings()
    embedding.register_forward_hook(lambda *call: read.append(call[2].shape[:2].numel()))
    rows = np.arange(5)
    plain, step = 0, None
    for number in range(24):
        leaves = number % 6 == 5
        if leaves:  # the first of those that are left, also where it is yet to be read
            gone = np.isin(np.arange(5), rows[:1])
            rollout.leave_out(gone)
            rows = rows[1:]
        read.clear()
        only_goes_on = step and not leaves and not np.isin(step.begun, rows).any()
        step = rollout.step()
        if only_goes_on:
            assert sum(read) == len(rows) * (1 + bool(step.terminal_values.any()))
            plain += 1
        values, log_probs = expected_of(policy, step, rows)
        np.testing.assert_allclose(step.values[rows], values, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(step.log_probs[rows], log_probs, atol=1e-5, rtol=1e-5)
        for column in (step.actions, step.values, step.log_probs, step.terminal_values):
            assert not np.delete(column, rows).any()
    assert rows.tolist() == [4]
    assert plain > 5


def test_leaving_out_nobody_changes_nothing(make_rollout, text_kwargs):
    rollout, policy = make_rollout(make_env("native", 3, text_kwargs))
    rollout.step()
    rollout.leave_out(np.zeros(3, np.bool_))
    step = rollout.step()
    values, _ = expected_of(policy, step, np.arange(3))
    np.testing.assert_allclose(step.values, values, atol=1e-5, rtol=1e-5)


def test_the_likeliest_token_is_taken_if_that_is_wanted(make_rollout, text_kwargs):
    rollout, policy = make_rollout(make_env("native", 3, text_kwargs), deterministic=True)
    for _ in range(10):
        step = rollout.step()
        likeliest, _ = policy.predict(step.observations, deterministic=True)
        assert step.actions.tolist() == likeliest.tolist()
        _, log_probs = expected_of(policy, step, np.arange(3))
        np.testing.assert_allclose(step.log_probs, log_probs, atol=1e-5, rtol=1e-5)


def test_values_of_the_last_observations(make_rollout, text_kwargs):
    rollout, policy = make_rollout(make_env("native", 4, text_kwargs))
    rng = np.random.default_rng(0)
    for _ in range(12):
        step = rollout.step()
        wanted = rng.random(4) < 0.5
        with torch.no_grad():
            expected = policy.predict_values(obs_as_tensor(step.new_observations, "cpu"))[:, 0]
        np.testing.assert_allclose(
            rollout.values(wanted), np.where(wanted, expected, 0), atol=1e-5, rtol=1e-5
        )


def test_every_token_is_read_once_and_in_one_pass(make_rollout, text_kwargs):
    text_kwargs["budget_is_terminal"] = True  # nothing is asked about texts that have ended
    rollout, policy = make_rollout(make_env("native", 4, text_kwargs))
    read = []
    embedding = policy.backbone.model.get_input_embeddings()
    embedding.register_forward_hook(lambda *call: read.append(call[2].shape[:2].numel()))
    ended, expected = 0, None
    for _ in range(24):
        read.clear()
        step = rollout.step()
        assert expected is None or read == [expected]
        begun = np.isin(np.arange(4), step.begun)
        lengths = step.new_observations["attention_mask"].sum(1)
        # Rows that go on read their new token, and rows that begin their prompt.
        expected = (~begun).sum() + lengths[begun].sum()
        ended += len(step.begun)
    assert ended > 4


def test_values_that_were_asked_for_are_not_read_again(make_rollout, text_kwargs):
    rollout, policy = make_rollout(make_env("native", 4, text_kwargs))
    read = []
    embedding = policy.backbone.model.get_input_embeddings()
    embedding.register_forward_hook(lambda *call: read.append(1))
    everyone = np.ones(4, np.bool_)
    for _ in range(12):
        assert rollout.values(~everyone).tolist() == [0, 0, 0, 0]
        values = rollout.values(everyone)
        read.clear()
        np.testing.assert_array_equal(rollout.values(everyone), values)
        step = rollout.step()
        np.testing.assert_array_equal(step.values, values)
        assert len(read) == bool(step.terminal_values.any())


def test_tokens_are_drawn_as_often_as_they_are_likely(make_rollout, text_kwargs):
    text_kwargs["max_new_tokens"] = 1
    rollout, policy = make_rollout(make_env("native", 500, text_kwargs))
    drawn, expected = np.zeros(11), np.zeros(11)
    for _ in range(8):
        step = rollout.step()
        drawn += np.bincount(step.actions, minlength=11)
        with torch.no_grad():
            of_rows = policy.get_distribution(obs_as_tensor(step.observations, "cpu"))
        expected += of_rows.distribution.probs.sum(0).numpy()
    assert ((drawn - expected) ** 2 / expected).sum() < 40  # chi-squared of 10 degrees: 1 in 10^4


# What it refuses


@pytest.mark.parametrize("key", ["input_ids", "attention_mask"])
def test_normalised_observations_are_refused(make_model, text_kwargs, key):
    env = VecNormalize(make_env("native", 3, text_kwargs), norm_obs=True, norm_obs_keys=[key])
    ours = TokenPPO(
        TransformerPolicy, env, n_steps=4, policy_kwargs={"model": make_model(vocab_size=11)}
    )
    with pytest.raises(ValueError, match=rf"{key} are not whole numbers.*norm_obs=False"):
        ours.learn(12)


class Shows(VecEnvWrapper):
    """Changes what is observed."""

    def __init__(self, venv, change):
        super().__init__(venv)
        self.change = change

    def reset(self):
        return self.change(self.venv.reset())

    def step_wait(self):
        observations, *rest = self.venv.step_wait()
        return self.change(observations), *rest


def test_whole_numbers_of_any_type_are_read(make_rollout, text_kwargs):
    def as_floats(observations):
        return {key: x.astype(np.float32) for key, x in observations.items()}

    rollout, policy = make_rollout(Shows(make_env("native", 3, text_kwargs), as_floats))
    for _ in range(8):
        step = rollout.step()
        values, log_probs = expected_of(policy, step, np.arange(3))
        np.testing.assert_allclose(step.values, values, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(step.log_probs, log_probs, atol=1e-5, rtol=1e-5)


def test_texts_that_do_not_begin_on_the_left_are_refused(make_rollout, text_kwargs):
    def flipped(observations):
        mask = observations["attention_mask"].copy()
        mask[1] = mask[1, ::-1]
        return {**observations, "attention_mask": mask}

    with pytest.raises(ValueError, match="row 1 of attention_mask does not begin with 1"):
        make_rollout(Shows(make_env("native", 3, text_kwargs), flipped))


def test_a_full_context_has_no_room_for_a_token(make_rollout, text_kwargs):
    def full(observations):
        return {key: np.ones_like(x) for key, x in observations.items()}

    rollout, _ = make_rollout(Shows(make_env("native", 3, text_kwargs), full))
    with pytest.raises(ValueError, match=r"row 0 fills the context_length of 11.*End episodes"):
        rollout.step()


def test_an_environment_of_longer_texts_is_refused(make_token_ppo, text_kwargs):
    policy = make_token_ppo().policy
    length = policy.observation_space["input_ids"].shape[0]
    longer = gym.make_vec("TextGen-v0", 4, autoreset_mode="SameStep", context_length=length + 1,
                          **text_kwargs)  # fmt: skip
    env = VectorEnvBridge(longer)
    with pytest.raises(ValueError, match=f"context_length is {length + 1}, and the policy was made "
                       f"for one of {length}"):  # fmt: skip
        Rollout(Sampler(policy, 4), env, env.reset())
