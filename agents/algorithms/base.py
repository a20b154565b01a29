"""The one collect and the one train loop of the algorithms that learn from their own texts."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.algorithms.logs import log_episodes, log_update
from agents.algorithms.token_batch import TokenBatch, TokenSums
from agents.buffer import Segment, TokenRolloutBuffer
from agents.episode_sums import EpisodeSums
from agents.losses import adapted_kl_coef, approximate_kl, normalized
from agents.policy import TransformerPolicy
from agents.reference import Reference
from agents.rollout import Rollout
from agents.sampler import Sampler

Algorithm = TypeVar("Algorithm", bound="TokenOnPolicyAlgorithm")


class TokenOnPolicyAlgorithm(OnPolicyAlgorithm):
    """An SB3 on-policy algorithm that reads every text once.

    There is a cache in the rollout, and one pass a sequence in the update. `learn`, callbacks,
    logger, `save`, `load`, `set_parameters` and `predict` are SB3's. An algorithm adds its
    constructor and two hooks, `_policy_loss` and `_value_loss`.

    Args:
        policy: `TransformerPolicy`.
        env: An environment with the observations of `TextGen-v0`, or a vector environment.
        learning_rate, n_steps, gamma, gae_lambda, ent_coef, vf_coef, max_grad_norm, \
stats_window_size, tensorboard_log, policy_kwargs, verbose, seed, device: As in SB3.
        batch_size: Tokens of a mini-batch; None for the whole rollout.
        n_epochs: Passes over the rollout.
        normalize_advantage: Whether to normalise advantages over each mini-batch.
        target_kl: See `TokenPPO`.
        kl_coef: See `TokenPPO`.
        target_kl_ref: See `TokenPPO`.
        micro_batch_tokens: See `TokenPPO`.
        logits_budget: See `TokenPPO`.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If the policy is no `TransformerPolicy`.
    """

    rollout_buffer: TokenRolloutBuffer
    policy: TransformerPolicy

    def __init__(
        self,
        policy: type[TransformerPolicy],
        env: GymEnv | str,
        *,
        learning_rate: float | Schedule,
        n_steps: int,
        batch_size: int | None,
        n_epochs: int,
        gamma: float,
        gae_lambda: float,
        normalize_advantage: bool,
        ent_coef: float,
        vf_coef: float,
        max_grad_norm: float,
        target_kl: float | None,
        kl_coef: float,
        target_kl_ref: float | None,
        micro_batch_tokens: int,
        logits_budget: int,
        stats_window_size: int,
        tensorboard_log: str | None,
        policy_kwargs: dict[str, Any] | None,
        verbose: int,
        seed: int | None,
        device: torch.device | str,
        _init_setup_model: bool,
    ) -> None:
        if not (isinstance(policy, type) and issubclass(policy, TransformerPolicy)):
            raise TypeError(
                f"{type(self).__name__} trains a TransformerPolicy, got {policy!r}. For other "
                "policies take Stable-Baselines3's own algorithms."
            )
        counts = {
            "n_steps": n_steps,
            "batch_size": 1 if batch_size is None else batch_size,
            "n_epochs": n_epochs,
            "micro_batch_tokens": micro_batch_tokens,
            "logits_budget": logits_budget,
        }
        for name, count in counts.items():
            _check(name, count, count >= 1 and count == int(count), "a whole number of at least 1")
        for name, weight in {"kl_coef": kl_coef, "ent_coef": ent_coef, "vf_coef": vf_coef}.items():
            _check(name, weight, weight >= 0, "0 or above")
        for name, share in {"gamma": gamma, "gae_lambda": gae_lambda}.items():
            _check(name, share, 0 <= share <= 1, "from 0 to 1")
        _check("target_kl", target_kl, target_kl is None or target_kl > 0, "above 0, or None")
        if target_kl_ref is not None and not (target_kl_ref > 0 and kl_coef > 0):
            raise ValueError(
                f"target_kl_ref={target_kl_ref} with kl_coef={kl_coef}: the target, above 0, "
                "steers a coefficient that begins above 0; try kl_coef=0.1."
            )
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            rollout_buffer_class=TokenRolloutBuffer,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        self.kl_coef = kl_coef
        self.target_kl_ref = target_kl_ref
        self.micro_batch_tokens = micro_batch_tokens
        self.logits_budget = logits_budget
        self._episodes = 0
        if _init_setup_model:
            self._setup_model()

    @abstractmethod
    def _policy_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The actor's loss of each token, (m,), and numbers to log the means of, (m,) by name."""

    @abstractmethod
    def _value_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss of each token, (m,), and numbers to log the means of, (m,) by name."""

    def _setup_model(self) -> None:
        super()._setup_model()
        self._episode_sums = EpisodeSums(self.n_envs)
        self._sampler = Sampler(self.policy, self.n_envs)
        self.reference = Reference(self.policy).to(self.device) if self.kl_coef > 0 else None

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "reference", "_sampler", "_episode_sums"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        names, tensors = super()._get_torch_save_params()
        return [*names, *(["reference"] if self.reference is not None else [])], tensors

    def set_parameters(
        self,
        load_path_or_dict: str | dict[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Set the weights of policy, optimizer and reference; see SB3.

        Raises:
            ValueError: If only one of the two has a reference model.
        """
        given, has_reference = load_path_or_dict, self.reference is not None
        if exact_match and isinstance(given, dict) and ("reference" in given) != has_reference:
            was, now = ("0", "above 0") if has_reference else ("above 0", "0")
            raise ValueError(
                f"this was saved with a kl_coef {was}, which is now {now}: a reference model is "
                "there from the start of a training or not at all. Leave kl_coef as it was, or "
                "begin a new training with the trained model (policy.save_pretrained)."
            )
        super().set_parameters(load_path_or_dict, exact_match, device)

    def learn(
        self: Algorithm,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Algorithm:
        """Train; see SB3. TensorBoard runs are named after the algorithm unless told otherwise."""
        name = tb_log_name or type(self).__name__
        return super().learn(
            total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar
        )

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Write `n_rollout_steps` tokens in every environment; see SB3.

        Returns:
            Whether training goes on: False if a callback stopped it.
        """
        assert isinstance(rollout_buffer, TokenRolloutBuffer)
        assert isinstance(self._last_obs, dict)
        assert self._last_episode_starts is not None
        started = time.perf_counter()
        self.policy.set_training_mode(False)
        if self._sampler.policy is not self.policy:
            self._sampler = Sampler(self.policy, env.num_envs)
        self._episode_sums.begin(self._last_episode_starts)
        rollout_buffer.reset()
        callback.on_rollout_start()

        rollout = Rollout(self._sampler, env, self._last_obs)
        rollout_buffer.begin(np.arange(env.num_envs), self._last_obs)
        paid: list[NDArray[np.float32]] = []
        goes_on = True
        with self.policy.backbone.keeping_conversions():
            while goes_on and len(paid) < n_rollout_steps:
                step = rollout.step()
                self.num_timesteps += env.num_envs
                # Callbacks look for SB3's local variables.
                n_steps, new_obs, rewards = len(paid), step.new_observations, step.rewards
                dones, infos = step.dones, step.infos
                actions, values, log_probs = step.actions, step.values, step.log_probs
                callback.update_locals(locals())
                goes_on = callback.on_step()
                self._update_info_buffer(infos, dones)
                rollout_buffer.add_step(step, self._last_episode_starts, self.gamma)
                paid.append(rewards)
                self._last_obs, self._last_episode_starts = dict(new_obs), dones
            last_values = rollout.values(np.logical_not(dones))
        seconds = time.perf_counter() - started
        self.logger.record("time/rollout_tokens_per_second", len(paid) * env.num_envs / seconds)

        self._score_again(rollout_buffer)
        self._sum_up(rollout_buffer, np.stack(paid), dones)
        if not goes_on:
            return False
        rollout_buffer.compute_returns_and_advantage(last_values, dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Learn from the rollout; see SB3."""
        started = time.perf_counter()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        passes: list[TokenSums] = []
        goes_on = True
        while goes_on and len(passes) < self.n_epochs:
            passes.append(TokenSums())
            for segments in self.rollout_buffer.mini_batches(self.batch_size):
                batch = self._gradients(segments)
                passes[-1] += batch
                if self.target_kl is not None:
                    goes_on = batch.mean()["approx_kl"] <= 1.5 * self.target_kl
                    if not goes_on:
                        break
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()
            self._n_updates += 1
        self.policy.optimizer.zero_grad()
        every = sum(passes, TokenSums())
        last = {"last_loss": batch.mean()["loss"], "last_approx_kl": passes[-1].mean()["approx_kl"]}
        log_update(self.logger, {**every.mean(), **last})
        record, buffer = self.logger.record, self.rollout_buffer
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        record("train/explained_variance", explained)
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("lr", self.policy.optimizer.param_groups[0]["lr"])
        seconds = time.perf_counter() - started
        record("time/update_tokens_per_second", every.count / seconds)

    def _gradients(self, segments: Sequence[Segment]) -> TokenSums:
        """Put the gradient of a mini-batch's mean loss into the parameters.

        The sequences are read in parts. Losses are added up over all and divided by the number of
        tokens of all, so that the parts make no difference.

        Returns:
            Sums over the tokens of what is logged.
        """
        buffer, device = self.rollout_buffer, self.device
        places = np.concatenate(
            [np.arange(s.begin, s.end) * buffer.n_envs + s.row for s in segments]
        )
        advantages = buffer.to_torch(buffer.advantages.reshape(-1))
        if self.normalize_advantage:
            where = torch.from_numpy(places).to(device)
            advantages[where] = normalized(advantages[where])
        self.policy.optimizer.zero_grad()
        sums = TokenSums()
        for batch in buffer.sequence_batches(segments, self.micro_batch_tokens):
            values, log_probs, entropies = self.policy.evaluate_sequences(batch, self.logits_budget)
            where = torch.from_numpy(batch.places).to(device)
            old_log_probs, old_values, returns = (
                buffer.to_torch(column.reshape(-1)[batch.places], copy=False)
                for column in (buffer.log_probs, buffer.values, buffer.returns)
            )
            tokens = TokenBatch(
                log_probs,
                entropies,
                values,
                old_log_probs,
                old_values,
                advantages[where],
                returns,
            )
            policy_loss, of_actor = self._policy_loss(tokens)
            value_loss, of_critic = self._value_loss(tokens)
            loss = policy_loss - self.ent_coef * entropies + self.vf_coef * value_loss
            (loss.sum() / len(places)).backward()  # type: ignore[no-untyped-call]
            log_ratio = tokens.log_ratio.detach()
            logged = {
                "loss": loss,
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "entropy": entropies,
                "approx_kl": approximate_kl(log_ratio),
                "ratio": log_ratio.exp(),
                "ratio_squared": (2 * log_ratio).exp(),
                **of_actor,
                **of_critic,
            }
            sums += TokenSums(len(batch.places), {k: v.detach().sum() for k, v in logged.items()})
        return sums

    @torch.no_grad()
    def _score_again(self, buffer: TokenRolloutBuffer) -> None:
        """Score what was written by reading it as an update does: one pass a rollout.

        The reference model has seen nothing of it yet. And in bfloat16 a cache and a whole text
        give probabilities that differ by some percent, which an update would take for a change
        of the policy.
        """
        rounded = self.policy.backbone.dtype != "float32"
        if not rounded and self.reference is None:
            return
        for batch in buffer.sequence_batches(buffer.segments, self.micro_batch_tokens):
            scores: dict[str, Tensor] = {}
            if rounded:
                values, log_probs, _ = self.policy.evaluate_sequences(batch, self.logits_budget)
                scores.update(values=values, log_probs=log_probs)
            if self.reference is not None:
                scores["ref_log_probs"] = self.reference.log_probs(batch, self.logits_budget)
            for name, column in scores.items():
                getattr(buffer, name).reshape(-1)[batch.places] = column.cpu().numpy()

    def _sum_up(
        self, buffer: TokenRolloutBuffer, paid: NDArray[np.float32], last_dones: NDArray[np.bool_]
    ) -> None:
        """Take the KL penalty from the rewards, and log the episodes that ended."""
        pos = buffer.pos  # less than all, if a callback stopped
        log_probs = buffer.log_probs[:pos]
        steps = {"score": paid, "entropy": -log_probs, "length": np.ones_like(paid)}
        if self.reference is not None:
            steps["kl"] = log_probs - buffer.ref_log_probs[:pos]
            steps["penalty"] = -self.kl_coef * steps["kl"]
            buffer.rewards[:pos] += steps["penalty"]
            self.logger.record("objective/kl_coef", self.kl_coef)
        dones = np.concatenate([buffer.episode_starts[1:pos], last_dones[None]])
        ended = self._episode_sums.add(steps, dones)
        log_episodes(self.logger, ended)
        self._episodes += len(ended["length"])
        self.logger.record("episode", self._episodes)
        if self.target_kl_ref is not None and len(ended["kl"]):
            self.kl_coef = adapted_kl_coef(
                self.kl_coef, float(ended["kl"].mean()), self.target_kl_ref
            )


def _check(name: str, value: float | None, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"{name} must be {expected}, got {value!r}.")
