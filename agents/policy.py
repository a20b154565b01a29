"""Causal language models as ordinary Stable-Baselines3 actor-critic policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from agents.backbone import Backbone, DType, NextToken
from agents.health.causes import in_distribution
from agents.language_policy import LanguagePolicy, value_head
from agents.log_probs import LOGITS_BUDGET
from agents.models import ModelSpec
from agents.recurrent.make import RecurrentSpec, make_recurrent
from agents.sampling import Sampling
from agents.scoring import SequenceBatch, score
from textgym.tokenizer import BUILTIN


class CausalLMExtractor(BaseFeaturesExtractor):
    """Reads `input_ids` and `attention_mask` with a causal LM.

    SB3 hands features on without looking at them, so that these may be a pair: the hidden state,
    which the critic reads, and the logits of the next token, which are the actor.

    Args:
        observation_space: `Dict(input_ids, attention_mask)`.
        num_tokens: Size of the action space.
        model: See `Backbone`.
        backbone: A recurrent network to make in place of the model, or None; see `make_recurrent`.
        backbone_kwargs: See `Backbone`.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        num_tokens: int,
        model: ModelSpec = BUILTIN,
        backbone: RecurrentSpec | None = None,
        **backbone_kwargs: Any,
    ) -> None:
        context_length = _checked_context_length(observation_space)
        if backbone is not None:
            if model != BUILTIN:
                raise ValueError(
                    f"backbone={backbone!r} makes a model from scratch, and there is another one, "
                    f"a {type(model).__name__}, for model. Give one of them only."
                )
            model = make_recurrent(backbone, num_tokens)
        language_model = Backbone(model, num_tokens, context_length, **backbone_kwargs)
        super().__init__(observation_space, features_dim=language_model.width)
        self.backbone = language_model

    def forward(self, observations: dict[str, Tensor]) -> NextToken:
        """Features of a batch of observations (n, L), as SB3 gives them: in any number type.

        Raises:
            ValueError: If ids or mask are not whole numbers, or a row does not begin with a token.
        """
        features: NextToken = self.backbone(
            *(whole_numbers(key, observations[key]) for key in ("input_ids", "attention_mask"))
        )
        return features


class _ActorAndCritic(nn.Module):
    """Stands where SB3 has two MLPs: the actor reads the logits, the critic the hidden state."""

    def __init__(self, sampling: Sampling) -> None:
        super().__init__()
        self.sampling = sampling

    def forward(self, features: NextToken) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), features.hidden

    def forward_actor(self, features: NextToken) -> Tensor:
        return self.sampling.warp(features.logits)

    def forward_critic(self, features: NextToken) -> Tensor:
        return features.hidden


class TransformerPolicyMixin(LanguagePolicy):
    """What makes an SB3 actor-critic policy one of a causal LM; see `TransformerPolicy`."""

    # SB3 annotates what these are in its own policies.
    features_extractor: Any
    mlp_extractor: Any
    action_net: Any
    value_net: nn.Linear

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        model: ModelSpec = BUILTIN,
        *,
        backbone: RecurrentSpec | None = None,
        lora: bool | Mapping[str, Any] | None = None,
        dtype: DType = "float32",
        gradient_checkpointing: bool = False,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
    ) -> None:
        if use_sde:
            raise ValueError("use_sde is for continuous actions, and tokens are not; leave it off.")
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError(f"expected a Discrete action space of tokens, got {action_space}.")
        if optimizer_kwargs is None and optimizer_class is torch.optim.Adam:
            optimizer_kwargs = {"eps": 1e-5, "fused": True}
        allowed = getattr(action_space, "allowed", None)  # by an action space of `textgym`
        self._sampling = Sampling(temperature, top_k, top_p, allowed)
        self._model_kwargs = {
            "model": model,
            "backbone": backbone,
            "lora": lora,
            "dtype": dtype,
            "gradient_checkpointing": gradient_checkpointing,
        }
        super().__init__(  # an actor-critic policy's
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            ortho_init=False,
            features_extractor_class=CausalLMExtractor,
            features_extractor_kwargs={"num_tokens": int(action_space.n), **self._model_kwargs},
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )

    @property
    def backbone(self) -> Backbone:
        """The language model."""
        backbone: Backbone = self.features_extractor.backbone
        return backbone

    @property
    def value_head(self) -> nn.Linear:
        """Makes values of the model's hidden states."""
        return self.value_net

    def next_logits(self, seen: NextToken) -> Tensor:
        """Logits of what the next token is drawn from, float32 (n, vocabulary)."""
        return self.sampling.warp(seen.logits)

    def state_values(self, seen: NextToken) -> Tensor:
        """What the critic says of the texts as they stand, float32 (n,)."""
        values: Tensor = self.value_net(seen.hidden)
        return values[:, 0]

    @property
    def sampling(self) -> Sampling:
        """What is done to the model's logits before a token is drawn."""
        return self._sampling

    @sampling.setter
    def sampling(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self.mlp_extractor.sampling = sampling

    def set_temperature(self, temperature: float) -> None:
        """Divide the logits by another temperature from now on."""
        self.sampling = replace(self.sampling, temperature=temperature)

    def evaluate_sequences(
        self, batch: SequenceBatch, logits_budget: int = LOGITS_BUDGET
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What `evaluate_actions` gives for single tokens, for whole texts, each read once.

        Args:
            batch: The sequences, with m written tokens in all.
            logits_budget: Largest number of logits to hold at a time.

        Returns:
            Values of the states before the tokens, log-probabilities of the tokens, and entropies
            of the distributions that they are from, float32 (m,) each.
        """
        hidden, log_probs, entropies = score(self.backbone, self.sampling, batch, logits_budget)
        return self.value_net(hidden)[:, 0], log_probs, entropies

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Any:
        """The distribution over tokens; SB3's name for it.

        Raises:
            Diverged: If the logits are no numbers.
        """
        try:
            return super()._get_action_dist_from_latent(latent_pi)  # type: ignore[misc]
        except ValueError as error:  # torch looks at them anyway, and says which numbers they are
            raise in_distribution(self, latent_pi) from error

    def _build(self, lr_schedule: Schedule) -> None:
        """Make the heads and the optimizer; called by SB3's constructor."""
        self.mlp_extractor = _ActorAndCritic(self.sampling)
        self.action_net = nn.Identity()
        self.value_net = value_head(self.backbone)
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]  # as SB3: each optimizer has it
            **self.optimizer_kwargs,
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """What SB3 stores to make this policy again."""
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            **self._model_kwargs,
            "temperature": self.sampling.temperature,
            "top_k": self.sampling.top_k,
            "top_p": self.sampling.top_p,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


class TransformerPolicy(TransformerPolicyMixin, ActorCriticPolicy):
    """A causal language model and a value head on its trunk, for stock PPO and A2C.

    The actor is the model's own distribution over the next token. The critic is a linear layer
    on the hidden state that the model's head reads. It is zero at the start, so that training
    begins with the model as it is and a value of 0, unless the model's directory holds the value
    head that `save_pretrained` wrote.

    Args:
        observation_space: `Dict(input_ids, attention_mask)`, as `TextGen-v0` has it.
        action_space: `Discrete(vocabulary of the tokenizer)`.
        lr_schedule: Learning rate by remaining progress, from SB3.
        model: A model's name (`textgym list models`), a local directory, a GGUF file, a hub id,
            or a causal LM itself, a `torch.nn.Module`, which is then trained in place. SB3's
            `save` stores this argument beside the weights: a module is stored twice, and a
            directory must still be there when `load` reads it
            (`custom_objects={"policy_kwargs": {"model": ...}}` if it moved).
        backbone: Make a recurrent network from scratch in place of a model: "rnn", "lstm", "gru",
            or with sizes, `{"name": "lstm", "width": 256, "layers": 1}`.
        lora: Train low-rank adapters and the value head only: arguments of `peft.LoraConfig`, or
            True for its defaults.
        dtype: "bfloat16" computes the transformer in it, by autocast; weights, head and losses
            stay in float32.
        gradient_checkpointing: Compute the inside of layers again in the backward pass: less
            memory, about a third more work in an update.
        temperature: Divides the logits, wherever this policy's probabilities are asked for.
        top_k: Only the k likeliest tokens are drawn; 0 for all.
        top_p: Only the likeliest tokens that together have this probability; 1 for all. With a
            filter, stock algorithms give a token that has left the set a ratio of 0; `TokenPPO`
            leaves the tokens that were drawn in it.
        optimizer_class: The optimizer.
        optimizer_kwargs: Its arguments; None for SB3's, which for Adam is an eps of 1e-5, and a
            fused step.
        use_sde: Must be False; SB3 passes it.

    Raises:
        ValueError: If model, tokenizer and context length do not fit together.

    Example:
        >>> import textgym, gymnasium
        >>> from stable_baselines3 import PPO
        >>> from agents import TransformerPolicy
        >>> env = gymnasium.make("TextGen-v0")
        >>> ppo = PPO(TransformerPolicy, env, policy_kwargs={"model": "builtin"})
    """


def _checked_context_length(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Dict) and {"input_ids", "attention_mask"} <= set(space.spaces):
        shape = space["input_ids"].shape
        if shape is not None and len(shape) == 1:
            return int(shape[0])
    raise ValueError(
        "expected an observation space Dict(input_ids=Box(L,), attention_mask=Box(L,)), as "
        f"TextGen-v0 has it, got {space}. Do not flatten or stack observations."
    )


def whole_numbers(key: str, observed: Tensor) -> Tensor:
    """An observation's whole numbers as int64; SB3 casts every Box to float32.

    float32 holds each id below 2**24 exactly.

    Raises:
        ValueError: If they are not whole numbers.
    """
    whole = observed.long()
    if observed.is_floating_point() and not torch.equal(whole.to(observed.dtype), observed):
        raise ValueError(
            f"{key} are not whole numbers (the first row begins with {observed[0, :4].tolist()}): "
            "something normalised the observations. Use VecNormalize(..., norm_obs=False)."
        )
    return whole
