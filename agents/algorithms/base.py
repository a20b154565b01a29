"""The base of the algorithms that learn from their own texts, with the one train loop."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from agents.algorithms.collect import TokenCollector
from agents.algorithms.logs import log_update
from agents.algorithms.settings import check_settings, wants_texts
from agents.algorithms.token_batch import TokenBatch, TokenSums
from agents.buffer import Segment, TokenRolloutBuffer
from agents.health.causes import in_update
from agents.health.diverged import dated
from agents.log_probs import LOGITS_BUDGET
from agents.losses import approximate_kl, normalized, value_loss
from agents.policy import TransformerPolicy
from agents.supervised.cross_entropy import imitate
from agents.supervised.demonstrations import Demonstrations

Algorithm = TypeVar("Algorithm", bound="TokenOnPolicyAlgorithm")


class TokenOnPolicyAlgorithm(TokenCollector):
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
            written enough waits for the others, and nothing is computed for it; `VecNormalize`
            takes its zeros for rewards, so leave `norm_reward` off.
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

    one_step: ClassVar[bool] = False
    """Whether a rollout is good for one step only, all of it at once."""
    averages_over: ClassVar[Literal["tokens", "texts"]] = "tokens"
    """What the sum of a mini-batch's losses is divided by the number of."""

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
        if self.one_step and (n_epochs, batch_size) != (1, None):
            raise ValueError(
                f"{type(self).__name__} takes one step a rollout, since nothing corrects for texts "
                f"of another policy; leave n_epochs={n_epochs} and batch_size={batch_size} out, or "
                "take TokenPPO."
            )
        if _init_setup_model and env is None:
            raise TypeError(
                f"{type(self).__name__} needs an environment, got None. Give for instance "
                'make_sb3_vec_env("TextGen-v0", 64).'
            )
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
        self._drawn_at = None
        if _init_setup_model:
            self._setup_model()

    @abstractmethod
    def _policy_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The actor's loss of each token, (m,), and numbers to log the means of, (m,) by name."""

    def _value_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss of each token, (m,), and numbers to log the means of, (m,) by name."""
        return value_loss(tokens.values, tokens.returns, tokens.old_values, None), {}

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
        """Train; see SB3. TensorBoard runs are named after the algorithm unless told otherwise.

        Raises:
            Diverged: If a loss, a gradient, a reward, a value or a probability is no number; the
                weights are those of the last good step then.
        """
        name = tb_log_name or type(self).__name__
        with dated(self):
            return super().learn(
                total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar
            )

    def train(self) -> None:
        """Learn from the rollout; see SB3."""
        started = time.perf_counter()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        passes: list[TokenSums] = []
        first = TokenSums()
        goes_on = True
        while goes_on and len(passes) < self.n_epochs:
            passes.append(TokenSums())
            for segments in self.rollout_buffer.mini_batches(self.batch_size):
                batch = self._gradients(segments)
                first = first if first.count else batch
                passes[-1] += batch
                parameters = self.policy.parameters()
                norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
                self._check_step(segments, batch, norm)
                if self.target_kl is not None:
                    goes_on = batch.mean()["approx_kl"] <= 1.5 * self.target_kl
                    if not goes_on:
                        break
                self.policy.optimizer.step()
            self._n_updates += 1
        self.policy.optimizer.zero_grad()
        every = sum(passes, TokenSums())
        last = {"last_loss": batch.mean()["loss"], "last_approx_kl": passes[-1].mean()["approx_kl"]}
        first_approx_kl = first.mean()["approx_kl"]
        log_update(self.logger, {**every.mean(), **last, "first_approx_kl": first_approx_kl})
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
        count = len(places)
        if self.averages_over == "texts":  # of which one may have several turns
            episodes = buffer.episodes
            count = len({int(episodes[s.begin, s.row]) for s in segments})
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
            # What is logged is a mean over tokens, and what is minimised perhaps one over texts.
            scale = len(places) / count
            logged = {
                "loss": scale * loss,
                "policy_loss": scale * policy_loss,
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

    def _check_step(self, segments: Sequence[Segment], batch: TokenSums, norm: Tensor) -> None:
        """Raise `Diverged` if loss or gradient of a mini-batch are no numbers."""
        total = batch.totals["loss"]
        loss, gradient = torch.stack([total.to(norm), norm]).tolist()  # one wait for a device
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            self.policy.optimizer.zero_grad()
            raise in_update(self, segments, loss / batch.count, gradient)

    def _imitate(self, num_tokens: int) -> None:
        """Add the gradient of the mean cross-entropy of about so many tokens of `sft_data`."""
        if self.sft_data is None:
            raise ValueError(wants_texts(self.sft_coef))
        loss = imitate(
            self.policy.backbone,
            self.sft_data,
            num_tokens,
            self.sft_coef,
            self.micro_batch_tokens,
            self.logits_budget,
        )
        self.logger.record_mean("loss/sft_avg", loss)
