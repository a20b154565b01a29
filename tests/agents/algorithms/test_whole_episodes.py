"""Rollouts of whole episodes, in groups that share their prompt."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from agents.algorithms.grpo import GRPO
from agents.algorithms.reinforce import Reinforce
from agents.algorithms.rloo import RLOO
from agents.watching import EpisodeCollector

MOST = 6  # tokens of a text in `text_kwargs`
NUMBERS = ("rewards", "values", "log_probs", "ref_log_probs", "advantages", "returns")
PROMPTS = {tuple(range(1, length + 1)) for length in range(1, 6)}


class Steps(BaseCallback):
    """What callbacks are told: the tokens and rewards of each row, cut where an episode ends."""

    def __init__(self):
        super().__init__()
        self.ended = []

    def _on_rollout_start(self):
        self.begun = [([], []) for _ in range(self.training_env.num_envs)]

    def _on_step(self):
        for row in self.locals["rows"]:
            tokens, rewards = self.begun[row]
            tokens.append(int(self.locals["actions"][row]))
            rewards.append(float(self.locals["rewards"][row]))
            if self.locals["dones"][row]:
                info = self.locals["infos"][row]
                self.ended.append((info["prompt"], tokens, rewards, info["score"]))
                self.begun[row] = ([], [])
        return True


def texts_of(buffer):
    """Prompt, tokens and sum of the rewards of each text, in the order in which they began."""
    texts = []
    for segment in sorted(buffer.segments, key=lambda segment: (segment.begin, segment.row)):
        where = slice(segment.begin, segment.end), segment.row
        texts.append(
            (
                tuple(segment.context.tolist()),
                buffer.actions[where].tolist(),
                float(buffer.rewards[where].sum()),
            )
        )
    return texts


def letters(token_ids):
    return "".join("abcdefghij"[token - 1] for token in token_ids)


@pytest.fixture
def make(make_algorithm, text_kwargs, shake):
    def make(algorithm=GRPO, *, n_envs, budget_is_terminal=True, **settings):
        env_kwargs = {**text_kwargs, "budget_is_terminal": budget_is_terminal}
        algorithm = make_algorithm(algorithm, env_kwargs, n_envs=n_envs, **settings)
        shake(algorithm.policy)
        return algorithm

    return make


@pytest.mark.parametrize(
    ("n_envs", "n_episodes"), [(4, 4), (3, 24), (5, 12), (8, 4), (1, 4), (7, 28)]
)
def test_every_text_is_whole_and_groups_share_their_prompt(make, n_envs, n_episodes):
    ours = make(n_envs=n_envs, n_episodes=n_episodes, group_size=4)
    ours._setup_learn(10_000)
    told = ours._init_callback(Steps())
    prompts, lengths, count = set(), set(), 0
    for _ in range(5):
        told.ended.clear()
        buffer = ours.rollout_buffer
        assert ours.collect_rollouts(ours.env, told, buffer, ours.n_steps)
        assert not any(tokens for tokens, _ in told.begun)  # none was given up
        texts = texts_of(buffer)
        assert len(texts) == n_episodes
        for prompt, written, _ in texts:
            assert prompt in PROMPTS
            assert 0 not in written[:-1]
            assert written[-1] == 0 or len(written) == MOST
        for first in range(0, n_episodes, 4):
            assert len({prompt for prompt, _, _ in texts[first : first + 4]}) == 1

        # What callbacks were told is what is in the buffer, and nothing else.
        of_callbacks = [
            (prompt, written, sum(rewards)) for prompt, written, rewards, _ in told.ended
        ]
        of_buffer = [(letters(prompt), written, paid) for prompt, written, paid in texts]
        for told_text, text in zip(sorted(of_callbacks), sorted(of_buffer), strict=True):
            assert told_text[:2] == text[:2]
            assert told_text[2] == pytest.approx(text[2], abs=1e-5)
        for _, _, rewards, score in told.ended:
            assert sum(rewards) == pytest.approx(score, abs=1e-5)

        assert buffer.written.sum() == sum(len(written) for _, written, _ in texts)
        count += buffer.written.sum()
        assert ours.num_timesteps == count
        prompts |= {prompt for prompt, _, _ in texts}
        lengths |= {len(written) for _, written, _ in texts}
    assert len(prompts) > 1
    assert len(lengths) > 1
    if n_envs == 3:  # a row that is done with a text begins the next one at once
        assert not buffer.written[-1].all()
        assert buffer.written[: len(buffer.written) // 2].all()


def test_advantages_belong_to_the_tokens_of_their_group(make, collect):
    """By the definition, text for text."""
    ours = make(RLOO, n_envs=3, n_episodes=12, group_size=4, credit="sequence")
    buffer = collect(ours)
    ordered = sorted(buffer.segments, key=lambda segment: (segment.begin, segment.row))
    paid = [buffer.rewards[s.begin : s.end, s.row].sum() for s in ordered]
    for place, segment in enumerate(ordered):
        group = range(place - place % 4, place - place % 4 + 4)
        others = np.mean([paid[other] for other in group if other != place])
        advantages = buffer.advantages[segment.begin : segment.end, segment.row]
        np.testing.assert_allclose(advantages, paid[place] - others, atol=1e-5)
    assert np.std(paid) > 0.1
    assert buffer.advantages.dtype == buffer.returns.dtype == np.float32


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (GRPO, {"group_size": 4, "kl_coef": 0.2}),
        (RLOO, {"group_size": 4, "kl_coef": 0.2}),
        (RLOO, {"group_size": 4, "credit": "sequence"}),
        (Reinforce, {"normalize_advantage": True, "ent_coef": 0.1}),
    ],
)
def test_cells_that_were_not_written_enter_no_loss(make, collect, algorithm, settings):
    after = []
    for poison in (False, True):
        ours = make(algorithm, n_envs=3, n_episodes=12, learning_rate=1e-3, **settings)
        before = torch.cat([p.detach().flatten().clone() for p in ours.policy.parameters()])
        buffer = collect(ours)
        empty = ~buffer.written
        assert empty.any()
        if poison:
            for name in (
                "rewards",
                "values",
                "log_probs",
                "ref_log_probs",
                "advantages",
                "returns",
            ):
                getattr(buffer, name)[empty] = np.nan
            buffer.actions[empty] = 10**6
        ours.batch_size = 20
        np.random.seed(0)
        ours.train()
        after.append(torch.cat([p.detach().flatten() for p in ours.policy.parameters()]))
        assert (after[-1] - before).abs().max() > 1e-4
        numbers = [v for v in ours.logger.name_to_value.values() if isinstance(v, float)]
        assert np.isfinite(numbers).all()
    torch.testing.assert_close(after[0], after[1], atol=0, rtol=0)


@pytest.mark.parametrize("credit", ["token", "sequence"])
@pytest.mark.parametrize("algorithm", [GRPO, RLOO])
def test_how_much_is_read_at_a_time_never_changes_the_gradient(
    make, collect, shake, algorithm, credit
):
    ours = make(algorithm, n_envs=5, n_episodes=24, group_size=4, credit=credit, kl_coef=0.2)
    segments = collect(ours).segments
    shake(ours.policy, 1)  # else the ratios would be 1
    found = []
    for ours.micro_batch_tokens in (10**9, 40, 1):
        ours._gradients(segments)
        gradients = [p.grad.flatten() for p in ours.policy.parameters() if p.grad is not None]
        found.append(torch.cat(gradients))
    assert found[0].norm() > 0.1
    for gradient in found[1:]:
        assert (gradient - found[0]).norm() <= 1e-5 * found[0].norm()


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (GRPO, {"group_size": 4}),
        (RLOO, {"group_size": 4}),
        (Reinforce, {"baseline": True}),
        (Reinforce, {"baseline": False}),
    ],
)
def test_returns_are_what_was_paid(make, collect, algorithm, settings):
    """What a critic says of a text that was cut is no part of it."""
    ours = make(algorithm, n_envs=4, n_episodes=12, budget_is_terminal=False, **settings)
    ours._setup_learn(10_000)
    told, buffer = ours._init_callback(Steps()), ours.rollout_buffer
    assert ours.collect_rollouts(ours.env, told, buffer, ours.n_steps)
    assert np.abs(buffer.values).max() > 0.1
    of_buffer = {
        (letters(s.context), *buffer.actions[s.begin : s.end, s.row].tolist()): buffer.returns[
            s.begin, s.row
        ]
        for s in buffer.segments
    }
    cut = 0
    for prompt, written, rewards, _ in told.ended:
        cut += len(written) == MOST and written[-1] != 0
        assert of_buffer[(prompt, *written)] == pytest.approx(sum(rewards), abs=1e-5)
    assert cut > 3


def test_callbacks_see_whole_texts(make):
    ours = make(n_envs=3, n_episodes=12, group_size=4)
    collector, told = EpisodeCollector(), Steps()
    seen = []

    class Keep(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            seen.extend(collector.episodes)

    ours.learn(150, [collector, told, Keep()])
    assert len(seen) == len(told.ended) >= 24
    for episode, (prompt, written, rewards, score) in zip(seen, told.ended, strict=True):
        assert (episode.prompt, episode.token_ids) == (prompt, written)
        assert episode.rewards == pytest.approx(rewards)
        assert episode.score == pytest.approx(score)


def test_learning_goes_on_until_enough_was_written(make):
    ours = make(n_envs=3, n_episodes=12, group_size=4)
    ours.learn(150)
    assert 150 <= ours.num_timesteps < 150 + 12 * MOST
    assert ours._n_updates == ours.logger.name_to_value["train/n_updates"] >= 3
    assert len(ours.ep_info_buffer) >= 36
    assert {info["l"] for info in ours.ep_info_buffer} <= set(range(1, MOST + 1))


def test_a_callback_may_stop_in_the_middle(make):
    class Stop(BaseCallback):
        def _on_step(self):
            return self.n_calls < 4

    ours = make(n_envs=3, n_episodes=12, group_size=4)
    ours.learn(150, Stop())
    assert ours._n_updates == 0
    assert 4 < ours.num_timesteps <= 12
    ours.learn(60, reset_num_timesteps=False)
    assert ours._n_updates > 0


def test_groups_have_to_be_whole(make):
    with pytest.raises(ValueError, match="group_size=4"):
        make(n_envs=3, n_episodes=6, group_size=4)


@pytest.mark.parametrize("algorithm", [GRPO, RLOO])
def test_an_environment_that_gives_no_groups_is_refused(make, collect, monkeypatch, algorithm):
    ours = make(algorithm, n_envs=3, n_episodes=12, group_size=4)
    monkeypatch.setattr(ours.env, "set_options", lambda options: None)
    with pytest.raises(ValueError, match="4 texts of each prompt"):
        collect(ours)
