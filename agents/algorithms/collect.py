"""The one collect loop of the algorithms that learn from their own texts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv

from agents.algorithms.endings import AfterEpisodes, AfterSteps, Ending
from agents.algorithms.logs import log_episodes
from agents.algorithms.stock_callbacks import those_of_process
from agents.buffer import TokenRolloutBuffer
from agents.distributed.launcher import launcher_shards
from agents.distributed.learner import Learner
from agents.distributed.processes import Processes, join
from agents.episode_sums import EpisodeSums
from agents.losses import adapted_kl_coef
from agents.policy import TransformerPolicy
from agents.reference import Reference
from agents.rollout import Rollout
from agents.sampler import Sampler


class TokenCollector(OnPolicyAlgorithm):
    """Writes texts with a cache, and makes of them what an algorithm learns from.

    Its arguments are those of `TokenOnPolicyAlgorithm`, which sets the attributes and learns.
    """

    processes: Processes
    learner: Learner
    shard: bool
    rollout_buffer: TokenRolloutBuffer
    policy: TransformerPolicy
    n_episodes: int | None
    kl_coef: float
    target_kl_ref: float | None
    temperature: float | Schedule | None
    micro_batch_tokens: int
    logits_budget: int
    _episodes: int
    _drawn_at: float | None

    whole_episodes: ClassVar[bool] = False
    """Whether returns are of whole episodes, one of each environment unless `n_episodes` is given,
    and end with them: nothing is expected after texts that were cut."""
    penalizes_reward: ClassVar[bool] = True
    """Whether `kl_coef` is a penalty on rewards; otherwise the policy loss has it."""

    def _estimate_advantages(
        self, last_values: NDArray[np.float32], last_dones: NDArray[np.bool_]
    ) -> None:
        """Fill `advantages` and `returns` of the buffer: generalised advantage estimates.

        Args:
            last_values: The critic's values of the states after the last step, (n,).
            last_dones: Whether the last step ended its episode, (n,).
        """
        self.rollout_buffer.compute_returns_and_advantage(last_values, last_dones)

    @property
    def episodes_wanted(self) -> int | None:
        """Texts of a rollout; None if it goes by steps."""
        if self.n_episodes is None and self.whole_episodes:
            return self.n_envs
        return self.n_episodes

    def _reset_options(self) -> dict[str, Any]:
        """Options of the reset with which a rollout of whole episodes begins."""
        return {}

    def _setup_model(self) -> None:
        self.processes = join(self.device)
        super()._setup_model()
        self.processes.share(self.policy)
        shards = self.shard or launcher_shards()
        self.learner = Learner(self.policy, self.processes, shards=shards)
        self._episode_sums = EpisodeSums(self.n_envs)
        self._sampler = Sampler(self.policy, self.n_envs)
        self.reference: Reference | None = None
        if self.kl_coef > 0:
            self.refer_to_policy()
        if self.temperature is not None:
            # Of what is loaded, the one at which it wrote last.
            drawn_at = self._drawn_at or self._now(self.temperature)
            self.policy.set_temperature(drawn_at)

    def refer_to_policy(self) -> None:
        """Take the model as it is now for the one from which the policy shall not stray."""
        self.reference = Reference(self.policy).to(self.device)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """As SB3, but not below 0: whole episodes may write some tokens more than were asked."""
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        self._current_progress_remaining = max(self._current_progress_remaining, 0.0)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if not self.processes.is_first:  # who alone speaks and writes
            self.verbose, progress_bar = 0, False
            if not self._custom_logger:
                self.set_logger(Logger(None, []))
        if self.processes.count > 1:
            callback = those_of_process(callback, self.processes.is_first, self.learner.shards)
        return super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed all generators; see SB3. Of several processes each gets a seed of its own."""
        super().set_random_seed(None if seed is None else self.processes.seed(seed))

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log; see SB3. Means over the last episodes are over those of all processes."""
        own = self.ep_info_buffer, self.ep_success_buffer
        lately = list(own[0] or ()), list(own[1] or ())
        every = self.processes.gather("logs its last episodes", lately)
        self.ep_info_buffer = deque(chain.from_iterable(infos for infos, _ in every))
        self.ep_success_buffer = deque(chain.from_iterable(successes for _, successes in every))
        super().dump_logs(iteration)
        self.ep_info_buffer, self.ep_success_buffer = own

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Write `n_rollout_steps` tokens in every environment, or whole episodes; see SB3.

        Returns:
            Whether training goes on: False if a callback stopped it.
        """
        assert isinstance(rollout_buffer, TokenRolloutBuffer)
        started, first = time.perf_counter(), self.num_timesteps
        self.policy.set_training_mode(False)
        # SB3 does so after a rollout, and schedules begin before the first.
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        if self.temperature is not None:
            self._drawn_at = self._now(self.temperature)
            self.policy.set_temperature(self._drawn_at)
            self.logger.record("rollout/temperature", self.policy.sampling.temperature)
        with self.learner.gathered():
            goes_on, paid, last_values = self._write(env, callback, rollout_buffer, n_rollout_steps)
        dones = self._last_episode_starts
        assert dones is not None
        goes_on = self._meet(callback, first, goes_on)
        seconds = time.perf_counter() - started
        speed = (self.num_timesteps - first) / seconds
        self.logger.record("time/rollout_tokens_per_second", speed)

        self._score_again(rollout_buffer)
        self._sum_up(rollout_buffer, paid, dones)
        if not goes_on:
            if self._last_obs is None:  # so that a checkpoint can be made of what is there
                self._last_obs = env.reset()  # type: ignore[assignment]
                self._last_episode_starts = np.ones(env.num_envs, np.bool_)
            return False
        self._estimate_advantages(last_values, dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _write(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: TokenRolloutBuffer,
        n_rollout_steps: int,
    ) -> tuple[bool, NDArray[np.float32], NDArray[np.float32]]:
        """Fill the buffer with texts, while the policy stays as it is.

        Returns:
            Whether callbacks go on; what each step was paid, (T, n); and the critic's values of
            the states after the last step, (n,).
        """
        if self._sampler.policy is not self.policy or self._sampler.num_rows < env.num_envs:
            self._sampler = Sampler(self.policy, env.num_envs)
        # Before anything is drawn for this rollout, so that a checkpoint lies between two.
        callback.on_rollout_start()
        n_episodes = self.episodes_wanted
        if n_episodes is not None:
            env.set_options(self._reset_options())
            self._last_obs = env.reset()  # type: ignore[assignment]
            self._last_episode_starts = np.ones(env.num_envs, np.bool_)
        assert isinstance(self._last_obs, dict)
        assert self._last_episode_starts is not None
        self._episode_sums.begin(self._last_episode_starts)
        rollout_buffer.reset()

        rollout = Rollout(self._sampler, env, self._last_obs)
        rollout_buffer.begin(np.arange(env.num_envs), self._last_obs)
        ending: Ending = AfterSteps(n_rollout_steps)
        if n_episodes is not None:
            ending = AfterEpisodes(n_episodes, env.num_envs)
            rollout.leave_out(ending.unwanted)
        after_cuts = 0.0 if self.whole_episodes else self.gamma
        paid: list[NDArray[np.float32]] = []
        goes_on = True
        with self.policy.backbone.keeping_conversions(), self._giving_up_what_is_ahead(rollout):
            while goes_on and (rollout.unsettled or not ending.over):
                while rollout.writes_on and not ending.over:
                    enough = ending.take(rollout.write())
                    if enough.any() and not ending.over:
                        rollout.leave_out(enough)
                step = rollout.settle()
                self.num_timesteps += len(step.rows) * self.processes.count
                # Callbacks look for SB3's local variables.
                n_steps, new_obs, rewards = len(paid), step.new_observations, step.rewards
                dones, infos, rows = step.dones, step.infos, step.rows
                actions, values, log_probs = step.actions, step.values, step.log_probs
                callback.update_locals(locals())
                goes_on = callback.on_step()
                self._update_info_buffer(infos, dones)
                rollout_buffer.add_step(step, self._last_episode_starts, after_cuts)
                self._last_obs, self._last_episode_starts = dict(new_obs), dones
                paid.append(rewards)
            last_values = rollout.values(np.logical_not(dones) & (n_episodes is None))
        rollout_buffer.trim()
        return goes_on, np.stack(paid), last_values

    def _meet(self, callback: BaseCallback, first: int, goes_on: bool) -> bool:
        """Count the tokens of all processes; until then this one took the others' for as many.

        Args:
            callback: Learns of it, with all that are in it.
            first: Tokens that all had written before this rollout.
            goes_on: Whether this one's callbacks go on.

        Returns:
            Whether all go on.
        """
        own = int(self.rollout_buffer.written.sum()), goes_on
        counts = self.processes.gather("ends a rollout", own)
        self.num_timesteps = first + sum(written for written, _ in counts)
        to_tell: list[Any] = [callback]
        while to_tell:
            each = to_tell.pop()
            if isinstance(each, BaseCallback):
                each.num_timesteps = self.num_timesteps
                to_tell += [*getattr(each, "callbacks", ()), getattr(each, "callback", None)]
        return all(each for _, each in counts)

    @contextmanager
    def _giving_up_what_is_ahead(self, rollout: Rollout) -> Iterator[None]:
        """If a rollout is stopped while texts are ahead of their rewards, all rows begin anew."""
        try:
            yield
        finally:
            if rollout.unsettled:
                self._last_obs = None

    def _now(self, value: float | Schedule) -> float:
        """What a number, or a schedule of the remaining progress, is by now."""
        return FloatSchedule(value)(self._current_progress_remaining)

    @torch.no_grad()
    def _score_again(self, buffer: TokenRolloutBuffer) -> None:
        """Score what was written by reading it as an update does: one pass a rollout.

        The reference model has seen nothing of it yet. And in bfloat16 a cache and a whole text
        give probabilities that differ by some percent, which an update would take for a change
        of the policy.
        """
        if self.policy.backbone.dtype != "float32":
            with self.learner.gathered():
                for batch in buffer.sequence_batches(buffer.segments, self.micro_batch_tokens):
                    values, log_probs, _ = self.policy.evaluate_sequences(batch, self.logits_budget)
                    buffer.put(batch.places, values=values, log_probs=log_probs)
        if self.reference is not None:
            with self.learner.gathered_reference():
                for batch in buffer.sequence_batches(buffer.segments, self.micro_batch_tokens):
                    ref_log_probs = self.reference.log_probs(
                        self.policy.sampling, batch, self.logits_budget
                    )
                    buffer.put(batch.places, ref_log_probs=ref_log_probs)

    def _sum_up(
        self, buffer: TokenRolloutBuffer, paid: NDArray[np.float32], last_dones: NDArray[np.bool_]
    ) -> None:
        """Take the KL penalty from the rewards, and log the episodes that ended."""
        length = buffer.written.astype(np.float32)
        steps = {"score": paid, "entropy": -buffer.log_probs, "length": length}
        if self.reference is not None:
            steps["kl"] = buffer.log_probs - buffer.ref_log_probs
            if self.penalizes_reward:
                steps["penalty"] = -self.kl_coef * steps["kl"]
                buffer.rewards += steps["penalty"]
            self.logger.record("objective/kl_coef", self.kl_coef)
        dones = np.concatenate([buffer.episode_starts[1:], last_dones[None]])
        ended = self.processes.concatenated(self._episode_sums.add(steps, dones))
        log_episodes(self.logger, ended)
        self._episodes += len(ended["length"])
        self.logger.record("episode", self._episodes)
        if self.target_kl_ref is not None and len(ended["kl"]):
            self.kl_coef = adapted_kl_coef(
                self.kl_coef, float(ended["kl"].mean()), self.target_kl_ref
            )
