"""The base of the algorithms that learn from their own texts."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from typing_extensions import Self

from agents.algorithms.settings import check_settings
from agents.algorithms.update import TokenLearner
from agents.buffer import TokenRolloutBuffer
from agents.distributed.processes import join
from agents.distributed.whole import whole
from agents.health.diverged import dated
from agents.log_probs import LOGITS_BUDGET
from agents.policy import TransformerPolicy
from agents.supervised.demonstrations import Demonstrations

Algorithm = TypeVar("Algorithm", bound="TokenOnPolicyAlgorithm")


class TokenOnPolicyAlgorithm(TokenLearner):
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
        shard: Of several processes, let each hold a part only of weights, gradients and optimizer
            state (FSDP2); whole weights are brought together for a rollout, and layer by layer in
            an update. `accelerate launch --use_fsdp` asks for it, too.
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
        shard: bool = False,
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
            verbose=verbose if join(device).is_first else 0,
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
        self.shard = shard
        self._episodes = 0
        self._drawn_at = None
        if _init_setup_model:
            self._setup_model()

    def _excluded_save_params(self) -> list[str]:
        own = ["reference", "processes", "learner", "_sampler", "_episode_sums", "sft_data"]
        return [*super()._excluded_save_params(), *own]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        names, tensors = super()._get_torch_save_params()
        return [*names, *(["reference"] if self.reference is not None else [])], tensors

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """The weights of policy, optimizer and reference; see SB3.

        Of a sharded policy they are whole in the first process, and all processes call it.
        """
        if not self.learner.is_sharded:
            return super().get_parameters()
        self.processes.gather("brings its weights together", None)  # or says that not all do
        optimizer: Any = self.policy.optimizer
        weights = {"policy": self.learner.whole(), "reference": self.learner.whole_reference()}
        return {
            "policy.optimizer": whole(optimizer.state_dict(), self.processes.is_first),
            **{name: each.state_dict() for name, each in weights.items() if each is not None},
        }

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save everything to a zip file; see SB3. Of several processes the first writes.

        The others need not call this, unless the policy is sharded; `load` waits for the file.
        """
        if self.processes.is_first:
            super().save(path, exclude, include)
        elif self.learner.is_sharded:
            self.get_parameters()

    @classmethod
    def load(
        cls,
        path: str | Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Load from a zip file; see SB3. Of several processes all call it."""
        join(device).wait()  # until the first has saved
        return super().load(
            path, env, device, custom_objects, print_system_info, force_reset, **kwargs
        )

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """The policy's tokens; see SB3.

        Raises:
            RuntimeError: If each process has a part of the policy only.
        """
        self.learner.check_whole()
        return super().predict(observation, state, episode_start, deterministic)

    def set_parameters(
        self,
        load_path_or_dict: str | dict[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Set the weights of policy, optimizer and reference; see SB3.

        Raises:
            RuntimeError: If each process has a part of the policy only.
            ValueError: If only one of the two has a reference model.
        """
        self.learner.check_whole(changes=True)
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
        self.learner.begin(self.policy.optimizer, self.reference)
        with dated(self):
            return super().learn(
                total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar
            )
