"""The one collect and the one train loop of the algorithms that learn from their own texts."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.algorithms.endings import AfterEpisodes, AfterSteps, Ending
from agents.algorithms.logs import log_episodes, log_update
from agents.algorithms.settings import check_settings
from agents.algorithms.token_batch import TokenBatch, TokenSums
from agents.buffer import Segment, TokenRolloutBuffer
from agents.episode_sums import EpisodeSums
from agents.log_probs import LOGITS_BUDGET
from agents.losses import adapted_kl_coef, approximate_kl, normalized, value_loss
from agents.policy import TransformerPolicy
from agents.reference import Reference
from agents.rollout import Rollout
from agents.sampler import Sampler
from agents.supervised.cross_entropy import cross_entropy
from agents.supervised.demonstrations import Demonstrations

Algorithm = TypeVar("Algorithm", bound="TokenOnPolicyAlgorithm")


class TokenOnPolicyAlgorithm(OnPolicyAlgorithm):
    """An SB3 on-policy algorithm that reads every text once.

    There is a cache in the rollout, and one pass a sequence in the update. `learn`, callbacks,
    logger, `save`, `load`, `set_parameters` and `predict` are SB3's. An algorithm adds its
    defaults and two of three hooks: `_estimate_advantages`, `_policy_loss` and `_value_loss`.

    Mini-batches are made of whole texts, since a text is read at once. There is no `use_sde` and
    no other `rollout_buffer_class`. Callbacks find `values` and `log_probs` as arrays, no
    `obs_tensor`, and `rows`, those in which a token was written. Logged are SB3's keys and those
    that TRL made familiar (`objective/kl`, `policy/clipfrac_avg`, ...), as means over tokens; with
    `VecNormalize` they are about the rewards that it gives. `policy/approxkl_avg` is the estimate
    that SB3 uses.

    Args:
        policy: `TransformerPolicy`. What belongs to the network is in `policy_kwargs`: `model`,
            `lora`, `dtype`, `gradient_checkpointing`, `temperature`, `top_k`, `top_p`.
        env: `TextGen-v0` or any environment with its observations, single, or an SB3 vector
            environment such as `make_sb3_vec_env` makes.
        learning_rate: Step size of the optimizer, or a schedule of the remaining progress.
        n_steps: Tokens that each environment gets between updates. Texts that are not finished go
            on in the next rollout.
        n_episodes: Texts that all environments write together between updates, each of them
            whole, and none of them begun before; None for `n_steps`. An environment that has
            written enough waits for the others, and nothing is computed for it.
        batch_size: Tokens of a mini-batch; None for the whole rollout. Texts are not torn apart:
            mini-batches are as many as they would be, and of about this size.
        n_epochs: Passes over the rollout in an update.
        gamma: Discount.
        gae_lambda: Bias (0) against variance (1) of the advantage estimates.
        normalize_advantage: Whether to normalise advantages over each mini-batch.
        ent_coef: Weight of the entropy bonus, or a schedule.
        vf_coef: Weight of the value loss; at 0 there is no critic to train.
        max_grad_norm: Largest norm of a gradient.
        target_kl: Stop an update when a mini-batch's estimate of the KL divergence from the
            policy of the rollout is over 1.5 times this; None for never.
        kl_coef: Penalty on the reward of each token: this, times its log-probability under the
            policy minus that under the reference, which is the model before training (with an
            adapter, the model without it). 0 for no reference.
        target_kl_ref: Let `kl_coef` follow this divergence from the reference, in nats an episode
            (Ziegler et al. 2019, section 2.2); None leaves it as it is.
        temperature: Divides the logits from the next rollout on, in writing and in learning, or a
            schedule, such as high at first to explore and low later; None for the policy's own.
        sft_coef: Share c of imitation in the loss, (1 - c) times this algorithm's plus c times the
            cross-entropy of `sft_data`.
        sft_data: Texts to imitate, from the references of a task or a corpus; see
            `agents.supervised.Demonstrations`. With each mini-batch about as many of their tokens
            are read. SB3's `save` leaves them out: give them to `load` again.
        micro_batch_tokens: Most tokens, prompts and padding among them, that are read at a time in
            an update. It decides about memory and speed, and never changes the result.
        logits_budget: Most logits that are held at a time. The same holds for it.
        stats_window_size: Episodes over which `rollout/` figures are averaged.
        tensorboard_log: Directory for TensorBoard; None for none.
        policy_kwargs: Arguments of the policy.
        verbose: 1 prints a table after every rollout, 2 says more.
        seed: Seed of prompts, sampling and mini-batches.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ...

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If the policy is no `TransformerPolicy`.
    """

    rollout_buffer: TokenRolloutBuffer
    policy: TransformerPolicy

    averages_over: ClassVar[Literal["tokens", "texts"]] = "tokens"
    """What the sum of a mini-batch's losses is divided by the number of."""
    whole_episodes: ClassVar[bool] = False
    """Whether returns are of whole episodes, one of each environment unless `n_episodes` is given,
    and end with them: nothing is expected after texts that were cut."""
    penalizes_reward: ClassVar[bool] = True
    """Whether `kl_coef` is a penalty on rewards; otherwise the policy loss has it."""

    def __init__(
        self,
        policy: type[TransformerPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-5,
        *,
        n_steps: int = 128,
        n_episodes: int | None = None,
        batch_size: int | None = None,
        n_epochs: int = 1,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        normalize_advantage: bool = False,
        ent_coef: float | Schedule = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        kl_coef: float = 0.0,
        target_kl_ref: float | None = None,
        temperature: float | Schedule | None = None,
        sft_coef: float = 0.0,
        sft_data: Demonstrations | None = None,
        micro_batch_tokens: int = 8_192,
        logits_budget: int = LOGITS_BUDGET,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        check_settings(locals())
        if not (isinstance(policy, type) and issubclass(policy, TransformerPolicy)):
            raise TypeError(
                f"{type(self).__name__} trains a TransformerPolicy, got {policy!r}. For other "
                "policies take Stable-Baselines3's own algorithms."
            )
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,  # type: ignore[arg-type]  # a schedule, too
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
        self.n_episodes = n_episodes
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        self.kl_coef = kl_coef
        self.target_kl_ref = target_kl_ref
        self.temperature = temperature
        self.sft_coef = sft_coef
        self.sft_data = sft_data
        self.micro_batch_tokens = micro_batch_tokens
        self.logits_budget = logits_budget
        self._episodes = 0
        if _init_setup_model:
            self._setup_model()

    def _estimate_advantages(
        self, last_values: NDArray[np.float32], last_dones: NDArray[np.bool_]
    ) -> None:
        """Fill `advantages` and `returns` of the buffer: generalised advantage estimates.

        Args:
            last_values: The critic's values of the states after the last step, (n,).
            last_dones: Whether the last step ended its episode, (n,).
        """
        self.rollout_buffer.compute_returns_and_advantage(last_values, last_dones)

    @abstractmethod
    def _policy_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The actor's loss of each token, (m,), and numbers to log the means of, (m,) by name."""

    def _value_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss of each token, (m,), and numbers to log the means of, (m,) by name."""
        return value_loss(tokens.values, tokens.returns, tokens.old_values, None), {}

    def _reset_options(self) -> dict[str, Any]:
        """Options of the reset with which a rollout of whole episodes begins."""
        return {}

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.whole_episodes and self.n_episodes is None:
            self.n_episodes = self.n_envs
        self._episode_sums = EpisodeSums(self.n_envs)
        self._sampler = Sampler(self.policy, self.n_envs)
        self.reference = Reference(self.policy).to(self.device) if self.kl_coef > 0 else None

    def _excluded_save_params(self) -> list[str]:
        own = ["reference", "_sampler", "_episode_sums", "sft_data"]
        return [*super()._excluded_save_params(), *own]

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
        """Write `n_rollout_steps` tokens in every environment, or whole episodes; see SB3.

        Returns:
            Whether training goes on: False if a callback stopped it.
        """
        assert isinstance(rollout_buffer, TokenRolloutBuffer)
        started, first = time.perf_counter(), self.num_timesteps
        self.policy.set_training_mode(False)
        if self._sampler.policy is not self.policy or self._sampler.num_rows < env.num_envs:
            self._sampler = Sampler(self.policy, env.num_envs)
        if self.temperature is not None:
            self.policy.set_temperature(self._now(self.temperature))
            self.logger.record("rollout/temperature", self.policy.sampling.temperature)
        if self.n_episodes is not None:
            env.set_options(self._reset_options())
            self._last_obs = env.reset()  # type: ignore[assignment]
            self._last_episode_starts = np.ones(env.num_envs, np.bool_)
        assert isinstance(self._last_obs, dict)
        assert self._last_episode_starts is not None
        self._episode_sums.begin(self._last_episode_starts)
        rollout_buffer.reset()
        callback.on_rollout_start()

        rollout = Rollout(self._sampler, env, self._last_obs)
        rollout_buffer.begin(np.arange(env.num_envs), self._last_obs)
        ending: Ending = AfterSteps(n_rollout_steps)
        if self.n_episodes is not None:
            ending = AfterEpisodes(self.n_episodes, env.num_envs)
            rollout.leave_out(ending.unwanted)
        after_cuts = 0.0 if self.whole_episodes else self.gamma
        paid: list[NDArray[np.float32]] = []
        goes_on = True
        with self.policy.backbone.keeping_conversions():
            while goes_on and not ending.over:
                step = rollout.step()
                self.num_timesteps += len(step.rows)
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
                enough = ending.take(dones)
                if enough.any() and not ending.over:
                    rollout.leave_out(enough)
            last_values = rollout.values(np.logical_not(dones) & (self.n_episodes is None))
        rollout_buffer.trim()
        seconds = time.perf_counter() - started
        speed = (self.num_timesteps - first) / seconds
        self.logger.record("time/rollout_tokens_per_second", speed)

        self._score_again(rollout_buffer)
        self._sum_up(rollout_buffer, np.stack(paid), dones)
        if not goes_on:
            return False
        self._estimate_advantages(last_values, dones)
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
        if self.vf_coef > 0:
            values, returns = (c[buffer.written] for c in (buffer.values, buffer.returns))
            record("train/explained_variance", explained_variance(values, returns))
        if callable(self.ent_coef):
            record("train/ent_coef", self._now(self.ent_coef))
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("lr", self.policy.optimizer.param_groups[0]["lr"])
        seconds = time.perf_counter() - started
        record("time/update_tokens_per_second", every.count / seconds)

    def _now(self, value: float | Schedule) -> float:
        """What a number, or a schedule of the remaining progress, is by now."""
        return FloatSchedule(value)(self._current_progress_remaining)

    def _gradients(self, segments: Sequence[Segment]) -> TokenSums:
        """Put the gradient of a mini-batch's mean loss into the parameters.

        The sequences are read in parts. Losses are added up over all and divided by the number of
        tokens, or texts, of all, so that the parts make no difference.

        Returns:
            Sums over the tokens of what is logged.
        """
        buffer, device, ent_coef = self.rollout_buffer, self.device, self._now(self.ent_coef)
        places = np.concatenate(
            [np.arange(s.begin, s.end) * buffer.n_envs + s.row for s in segments]
        )
        count = len(places) if self.averages_over == "tokens" else len(segments)
        advantages = buffer.to_torch(buffer.advantages.reshape(-1))
        if self.normalize_advantage:
            where = torch.from_numpy(places).to(device)
            advantages[where] = normalized(advantages[where])
        self.policy.optimizer.zero_grad()
        sums = TokenSums()
        for batch in buffer.sequence_batches(segments, self.micro_batch_tokens):
            values, log_probs, entropies = self.policy.evaluate_sequences(batch, self.logits_budget)
            where = torch.from_numpy(batch.places).to(device)
            old_log_probs, old_values, ref_log_probs, returns = (
                buffer.to_torch(column.reshape(-1)[batch.places], copy=False)
                for column in (
                    buffer.log_probs,
                    buffer.values,
                    buffer.ref_log_probs,
                    buffer.returns,
                )
            )
            tokens = TokenBatch(
                log_probs,
                entropies,
                values,
                old_log_probs,
                old_values,
                ref_log_probs,
                advantages[where],
                returns,
                batch.texts,
            )
            policy_loss, logged = self._policy_loss(tokens)
            loss = policy_loss - ent_coef * entropies
            if self.vf_coef > 0:
                value_loss, of_critic = self._value_loss(tokens)
                loss = loss + self.vf_coef * value_loss
                logged = {**logged, "value_loss": value_loss, **of_critic}
            share = (1 - self.sft_coef) / count
            (share * loss.sum()).backward()  # type: ignore[no-untyped-call]
            log_ratio = tokens.log_ratio.detach()
            logged = {
                "loss": loss,
                "policy_loss": policy_loss,
                "entropy": entropies,
                "approx_kl": approximate_kl(log_ratio),
                "ratio": log_ratio.exp(),
                "ratio_squared": (2 * log_ratio).exp(),
                **logged,
            }
            sums += TokenSums(len(batch.places), {k: v.detach().sum() for k, v in logged.items()})
        if self.sft_coef > 0:
            self._imitate(len(places))
        return sums

    def _imitate(self, num_tokens: int) -> None:
        """Add the gradient of the mean cross-entropy of about so many tokens of `sft_data`."""
        if self.sft_data is None:
            raise ValueError(
                f"sft_coef={self.sft_coef} wants texts to imitate, which are not saved with a "
                "model: load(..., sft_data=...)."
            )
        batches = list(self.sft_data.draw(num_tokens, self.micro_batch_tokens, self.device))
        count = sum(len(batch.tokens) for batch in batches)
        total = torch.zeros((), device=self.device)
        for batch in batches:
            loss = cross_entropy(self.policy.backbone, batch, self.logits_budget).sum() / count
            (self.sft_coef * loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.logger.record_mean("loss/sft_avg", total.item())

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
                scores["ref_log_probs"] = self.reference.log_probs(
                    self.policy.sampling, batch, self.logits_budget
                )
            for name, column in scores.items():
                getattr(buffer, name).reshape(-1)[batch.places] = column.cpu().numpy()

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
        ended = self._episode_sums.add(steps, dones)
        log_episodes(self.logger, ended)
        self._episodes += len(ended["length"])
        self.logger.record("episode", self._episodes)
        if self.target_kl_ref is not None and len(ended["kl"]):
            self.kl_coef = adapted_kl_coef(
                self.kl_coef, float(ended["kl"].mean()), self.target_kl_ref
            )
