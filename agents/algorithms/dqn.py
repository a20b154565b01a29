"""Deep Q-learning on tokens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv, RolloutReturn, Schedule, TrainFreq
from stable_baselines3.common.utils import FloatSchedule, should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.nn import functional

from agents.algorithms.settings import check, check_ranges, wants_texts
from agents.distributed.launcher import launched
from agents.exploration import EpsilonGreedySampler, explored
from agents.health.causes import in_q_update
from agents.health.diverged import dated
from agents.q_policy import LanguageQNetwork, TransformerQPolicy
from agents.replay import TextSamples, TokenReplayBuffer
from agents.rollout import Rollout
from agents.seen import MAX_TOKENS
from agents.supervised.cross_entropy import Imitation
from agents.supervised.demonstrations import Demonstrations
from textgym.arguments import is_number


class TokenDQN(DQN):
    r"""DQN as Stable-Baselines3 has it (Mnih et al. 2015), for language models, many times faster.

    $$ Q(s, a) \to r + \gamma \max_{a'} Q_{target}(s', a') $$

    Stock `DQN(TransformerQPolicy, env)` reads the whole text again for every token that it writes,
    and for every step that it learns from. This one keeps keys and values while it writes, and
    learns from steps that come one after another, so that it reads a text once for all of its
    steps. Given the same samples both take the same update.

    Defaults are SB3's but for these:

    * `gamma=1`: with it, paying at every token or at the end is one and the same objective. Give
      the environment `budget_is_terminal=True`, or nothing holds the value of cut texts in place.
    * `buffer_size=100_000`, of `TokenReplayBuffer`: tokens, each of which is stored once.
    * `batch_size=512`, `train_freq=8`, `gradient_steps=2`, `target_update_interval=1_000`,
      `learning_starts=1_000`: environments are many, and a sequence of steps costs little more
      than one step.
    * `epsilon=0.1` from the start, and until learning starts, too: tokens that are drawn by chance
      alone make no text to learn from. Each row tosses a coin of its own; SB3 tosses one for all.
    * Adam's epsilon is 1e-5.

    There is no `n_steps` and no other `replay_buffer_class`.

    Args:
        policy: `TransformerQPolicy`. What belongs to the network is in `policy_kwargs`: `model`,
            `q_scale`, `lora`, `dtype`, `gradient_checkpointing`.
        env: `TextGen-v0` or any environment with its observations, single, or an SB3 vector
            environment such as `make_sb3_vec_env` makes. Few tokens of a large vocabulary are
            tried by chance: its argument `vocabulary` leaves out all others.
        learning_rate: Step size of the optimizer, or a schedule of the remaining progress.
        buffer_size: Tokens that are kept, of all environments together.
        learning_starts: Tokens that are written before the first update.
        batch_size: Steps of a mini-batch.
        tau: Share of the trained network in the target network's update; 1 copies it.
        gamma: Discount.
        train_freq: Tokens that each environment gets between updates; see SB3.
        gradient_steps: Mini-batches of an update.
        target_update_interval: Tokens, of all environments together, between updates of the target
            network.
        sequence_length: Steps of a mini-batch that come one after another. 1 for steps that have
            nothing to do with each other, as SB3 draws them: less alike, and each costs a text.
        epsilon: Chance of a token that is drawn evenly from all that are allowed, or a schedule of
            the remaining progress, such as those of `agents.schedules`.
        double: Let the trained network choose the token whose value the target network gives
            (van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461), which overestimates less.
        sft_coef: Share c of imitation in the loss: (1 - c) times that of Q plus c times the
            cross-entropy of `sft_data`, of which about `batch_size` tokens are read each time.
        sft_data: Texts to imitate; see `agents.supervised.Demonstrations`. SB3's `save` leaves
            them out: give them to `load` again.
        max_grad_norm: Largest norm of a gradient.
        handle_timeout_termination: Whether a text that was cut counts as one that goes on.
        stats_window_size: Episodes over which `rollout/` figures are averaged.
        tensorboard_log: Directory for TensorBoard; None for none.
        policy_kwargs: Arguments of the policy.
        verbose: 1 prints a table after every fourth episode (`learn(log_interval=...)`).
        seed: Seed of prompts, exploring and mini-batches.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ...

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If the policy is no `TransformerQPolicy`.

    Example:
        >>> from agents import TokenDQN, TransformerQPolicy, make_sb3_vec_env
        >>> env_kwargs = {"budget_is_terminal": True}
        >>> env = make_sb3_vec_env("TextGen-v0", n_envs=32, env_kwargs=env_kwargs)
        >>> model = TokenDQN(TransformerQPolicy, env, 1e-4, epsilon=0.1, double=True)
        >>> model = model.learn(20_000, log_interval=100)
    """

    policy: TransformerQPolicy
    q_net: LanguageQNetwork
    q_net_target: LanguageQNetwork

    def __init__(
        self,
        policy: type[TransformerQPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 100_000,
        learning_starts: int = 1_000,
        batch_size: int = 512,
        tau: float = 1.0,
        gamma: float = 1.0,
        train_freq: int | tuple[int, str] = 8,
        gradient_steps: int = 2,
        target_update_interval: int = 1_000,
        sequence_length: int = 32,
        epsilon: float | Schedule = 0.1,
        double: bool = False,
        sft_coef: float = 0.0,
        sft_data: Demonstrations | None = None,
        max_grad_norm: float = 10.0,
        handle_timeout_termination: bool = True,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if not (isinstance(policy, type) and issubclass(policy, TransformerQPolicy)):
            raise TypeError(
                f"TokenDQN trains a TransformerQPolicy, got {policy!r}. For other policies take "
                "Stable-Baselines3's own DQN."
            )
        check_ranges(locals())
        steps = train_freq[0] if isinstance(train_freq, tuple) else train_freq
        # With none it would write for ever.
        check("train_freq", train_freq, is_number(steps) and steps >= 1, "at least 1")
        if sequence_length > batch_size:
            raise ValueError(
                f"sequence_length must be a whole number from 1 to the batch_size of {batch_size}, "
                f"got {sequence_length}."
            )
        self.epsilon = epsilon
        if sft_coef > 0 and sft_data is None:
            raise ValueError(wants_texts(sft_coef))
        self.double = double
        self.sft_coef = sft_coef
        self.sft_data = sft_data
        self.sequence_length = sequence_length
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            replay_buffer_class=TokenReplayBuffer,
            replay_buffer_kwargs={"handle_timeout_termination": handle_timeout_termination},
            target_update_interval=target_update_interval,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        if launched():
            raise ValueError(
                "TokenDQN trains in one process, and a launcher began several. Call the script "
                "without torchrun or accelerate launch, or take TokenPPO."
            )
        super()._setup_model()
        self.exploration_schedule = FloatSchedule(self.epsilon)
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        allowed = getattr(self.action_space, "allowed", np.arange(self.q_net.backbone.num_tokens))
        self._allowed = torch.tensor(allowed, device=self.device)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_allowed", "sft_data"]

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """The greedy tokens, or unless `deterministic` epsilon-greedy ones; see SB3."""
        actions, state = self.policy.predict(observation, state, episode_start, True)
        if not deterministic:
            greedy = torch.as_tensor(actions, device=self.device)
            actions = explored(greedy, self._allowed, self.exploration_rate).cpu().numpy()
        return actions, state

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Write tokens and store them; see SB3."""
        assert isinstance(self._last_obs, dict)
        self.policy.set_training_mode(False)
        sampler = EpsilonGreedySampler(
            self.policy, env.num_envs, self._allowed, lambda: self.exploration_rate
        )
        rollout = Rollout(sampler, env, self._last_obs)
        steps = episodes = 0
        callback.on_rollout_start()
        with self.policy.backbone.keeping_conversions(), dated(self):
            while should_collect_more_steps(train_freq, steps, episodes):
                step = rollout.step()
                steps += 1
                self.num_timesteps += env.num_envs
                # Callbacks look for SB3's local variables.
                actions, rewards, new_obs = step.actions, step.rewards, dict(step.new_observations)
                dones, infos = step.dones, step.infos
                callback.update_locals(locals())
                if not callback.on_step():
                    return RolloutReturn(steps * env.num_envs, episodes, continue_training=False)
                self._update_info_buffer(infos, dones)
                self._store_transition(replay_buffer, actions, new_obs, rewards, dones, infos)
                self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
                self._on_step()
                for _ in range(int(dones.sum())):
                    episodes += 1
                    self._episode_num += 1
                    if log_interval is not None and self._episode_num % log_interval == 0:
                        self.dump_logs()
        callback.on_rollout_end()
        return RolloutReturn(steps * env.num_envs, episodes, continue_training=True)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Learn from samples of what was stored; see SB3."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        losses, values = [], []
        for _ in range(gradient_steps):
            samples = self._samples(batch_size)
            q_values, targets = self._q_values_and_targets(samples)
            loss = functional.smooth_l1_loss(q_values, targets)
            self.policy.optimizer.zero_grad()
            ((1 - self.sft_coef) * loss).backward()  # type: ignore[no-untyped-call]
            if self.sft_coef > 0:
                self._imitate(batch_size)
            norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            mean = q_values.detach().mean()
            numbers = torch.stack([loss.detach(), norm.to(loss), mean]).tolist()  # one wait
            if not all(map(math.isfinite, numbers[:2])):
                self.policy.optimizer.zero_grad()
                with dated(self):
                    raise in_q_update(self, samples, q_values, targets, *numbers[:2])
            self.policy.optimizer.step()
            losses.append(numbers[0])
            values.append(numbers[2])
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(losses))
        self.logger.record("train/q_value", np.mean(values))

    def _imitate(self, num_tokens: int) -> None:
        """Add the gradient of the cross-entropy of about so many tokens of `sft_data`."""
        if self.sft_data is None:
            raise ValueError(wants_texts(self.sft_coef))
        batches = [*self.sft_data.draw(num_tokens, MAX_TOKENS, self.device)]
        count = sum(len(batch.tokens) for batch in batches)
        imitation = Imitation(self.q_net.backbone, batches, self.sft_coef, count)
        for piece in imitation.pieces:
            piece(1.0).backward()  # type: ignore[no-untyped-call]
        self.logger.record_mean("loss/sft_avg", imitation.mean)

    def _samples(self, batch_size: int) -> TextSamples:
        """Stored tokens to learn from."""
        assert isinstance(self.replay_buffer, TokenReplayBuffer)
        steps = self.replay_buffer.draw(batch_size, self.sequence_length)
        return self.replay_buffer.texts(*steps, self._vec_normalize_env)

    def _q_values_and_targets(self, samples: TextSamples) -> tuple[Tensor, Tensor]:
        """Q-values of stored tokens, and what they should be, float32 (m, 1) each."""
        ids, before, after = samples.input_ids, samples.before, samples.after
        places = torch.cat([before, after], 1) if self.double else before
        read = self.q_net.read(ids, places)
        q_values, online_next_q = read[: before.shape[1]], read[before.shape[1] :]
        with torch.no_grad():
            next_q = self.q_net_target.read(ids, after)
            choosing = online_next_q if self.double else next_q
            next_values = next_q.gather(1, choosing.argmax(1, keepdim=True))
            targets = samples.rewards + (1 - samples.dones) * self.gamma * next_values
        return q_values.gather(1, samples.actions), targets
