"""Causal language models as ordinary Stable-Baselines3 policies of Q-learning."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import Tensor, nn

from agents.backbone import Backbone, DType, NextToken
from agents.language_policy import LanguagePolicy, value_head
from agents.models import ModelSpec
from agents.policy import CausalLMExtractor
from agents.sampling import Sampling
from textgym.tokenizer import BUILTIN


class _DuelingHead(nn.Module):
    """Stands where SB3 has an MLP: makes Q-values of what the model says of the next token."""

    def __init__(self, backbone: Backbone, sampling: Sampling, q_scale: float) -> None:
        super().__init__()
        self.value_net = value_head(backbone)
        self.sampling = sampling
        self.q_scale = q_scale

    def forward(self, seen: NextToken) -> Tensor:
        """Q-values, float32 (n, vocabulary); the least finite number for what is not allowed."""
        logits = self.sampling.warp(seen.logits)
        q_values: Tensor = self.value_net(seen.hidden) + self.q_scale * logits.log_softmax(-1)
        if self.sampling.allowed is None:
            return q_values
        least = torch.finfo(logits.dtype).min
        return torch.where(logits > least, q_values, least)


class LanguageQNetwork(QNetwork):
    """SB3's Q-network with a causal language model in it; see `TransformerQPolicy`.

    Args:
        observation_space: `Dict(input_ids, attention_mask)`.
        action_space: `Discrete` of tokens.
        features_extractor: Reads observations.
        sampling: Says which tokens are allowed.
        q_scale: What a nat of log-probability is worth.
    """

    q_net: _DuelingHead  # type: ignore[assignment]  # SB3 has an MLP there

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        features_extractor: CausalLMExtractor,
        sampling: Sampling,
        q_scale: float,
    ) -> None:
        # Not QNetwork's own: it makes a layer of width times vocabulary that nobody would use.
        super(QNetwork, self).__init__(
            observation_space, action_space, features_extractor=features_extractor
        )
        self.backbone = features_extractor.backbone
        self.q_net = _DuelingHead(self.backbone, sampling, q_scale)

    def read(self, input_ids: Tensor, places: Tensor) -> Tensor:
        """Q-values of what comes after some tokens of texts, each text being read once.

        Args:
            input_ids: Right-padded texts, int64 (k, T).
            places: For each of m tokens its text and its place there, int64 (2, m).

        Returns:
            float32 (m, vocabulary).
        """
        texts, ends = places
        # A causal model needs no mask: what comes later changes nothing.
        seen = self.backbone.read(lambda h: h[texts, ends][:, None], {"input_ids": input_ids})
        q_values: Tensor = self.q_net(seen)
        return q_values

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """What SB3 stores to make this network again."""
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "features_extractor": self.features_extractor,
            "sampling": self.q_net.sampling,
            "q_scale": self.q_net.q_scale,
        }


class TransformerQPolicy(LanguagePolicy, DQNPolicy):
    r"""A causal language model as a Q-network, for stock DQN.

    $$ Q(s, a) = V(s) + \alpha \log \pi(a \mid s) $$

    Here $\pi$ is the model's softmax over the next token, $\alpha$ is `q_scale`, and V is a linear
    layer on the hidden state that the model's head reads, zero at the start. So the greedy policy
    of Q is the model's greedy text, training begins with the model as it is, and what comes out
    is a plain causal language model.

    The probabilities add up to 1, hence $V(s) = \alpha \log \sum_a \exp(Q(s, a) / \alpha)$ and
    $\pi(a \mid s) = \exp((Q(s, a) - V(s)) / \alpha)$: V is the soft value, and the model the
    policy, of soft Q-learning (Haarnoja et al. 2017, https://arxiv.org/abs/1702.08165). It is a
    dueling network (Wang et al. 2016, https://arxiv.org/abs/1511.06581) whose advantages have a
    soft maximum of 0 in place of a mean of 0. Any Q-function can be written so.

    The target network is a second copy of the whole model, with an adapter too: with weights,
    gradients and Adam's two moments, training takes five times the memory of the weights instead
    of four. SB3's `save` stores both networks.

    Args:
        observation_space: `Dict(input_ids, attention_mask)`, as `TextGen-v0` has it.
        action_space: `Discrete(vocabulary of the tokenizer)`. If it has an attribute `allowed`,
            the ids of the tokens that may be written, then the softmax is over these, and Q of
            all others is the least finite number.
        lr_schedule: Learning rate by remaining progress, from SB3.
        model: As for `TransformerPolicy`.
        backbone: As for `TransformerPolicy`.
        q_scale: What a nat of log-probability is worth in Q, in the unit of rewards. Rare tokens
            begin with low values, the lower the larger this is. If it is small, the model must
            change far to say that a token is worth a little more than another.
        lora: As for `TransformerPolicy`.
        dtype: As for `TransformerPolicy`.
        gradient_checkpointing: As for `TransformerPolicy`.
        optimizer_class: The optimizer.
        optimizer_kwargs: Its arguments; None for SB3's, which for Adam is an eps of 1e-5, and a
            fused step.

    Raises:
        ValueError: If model, tokenizer and context length do not fit together, or `q_scale` is
            not above 0.

    Example:
        >>> import textgym, gymnasium
        >>> from stable_baselines3 import DQN
        >>> from agents import TransformerQPolicy
        >>> from agents.replay import TokenReplayBuffer
        >>> env = gymnasium.make("TextGen-v0")
        >>> dqn = DQN(TransformerQPolicy, env, replay_buffer_class=TokenReplayBuffer)
    """

    q_net: LanguageQNetwork
    q_net_target: LanguageQNetwork

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        model: ModelSpec = BUILTIN,
        *,
        backbone: str | Mapping[str, Any] | None = None,
        q_scale: float = 0.1,
        lora: bool | Mapping[str, Any] | None = None,
        dtype: DType = "float32",
        gradient_checkpointing: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError(f"expected a Discrete action space of tokens, got {action_space}.")
        if not q_scale > 0:
            raise ValueError(f"q_scale must be above 0, got {q_scale}.")
        if optimizer_kwargs is None and optimizer_class is torch.optim.Adam:
            optimizer_kwargs = {"eps": 1e-5, "fused": True}
        allowed = getattr(action_space, "allowed", None)  # by an action space of `textgym`
        self._sampling = Sampling(allowed=allowed)
        self.q_scale = q_scale
        self._model_kwargs = {
            "model": model,
            "backbone": backbone,
            "lora": lora,
            "dtype": dtype,
            "gradient_checkpointing": gradient_checkpointing,
        }
        super().__init__(  # DQNPolicy's
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            features_extractor_class=CausalLMExtractor,
            features_extractor_kwargs={"num_tokens": int(action_space.n), **self._model_kwargs},
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )

    @property
    def sampling(self) -> Sampling:
        """Says which tokens are allowed; nothing else is done to the model's logits."""
        return self._sampling

    @property
    def backbone(self) -> Backbone:
        """The language model that is trained."""
        return self.q_net.backbone

    @property
    def value_head(self) -> nn.Linear:
        """Makes soft values of the model's hidden states."""
        return self.q_net.q_net.value_net

    def next_logits(self, seen: NextToken) -> Tensor:
        """0 for the token with the highest Q-value and the least finite number for all others.

        To draw from this is to be greedy. float32 (n, vocabulary).
        """
        best = self.q_net.q_net(seen).argmax(-1, keepdim=True)
        least = torch.full_like(seen.logits, torch.finfo(seen.logits.dtype).min)
        return least.scatter(1, best, 0.0)

    def state_values(self, seen: NextToken) -> Tensor:
        """The highest Q-value of the texts as they stand, float32 (n,)."""
        values: Tensor = self.q_net.q_net(seen).amax(-1)
        return values

    def predict_values(self, obs: dict[str, Tensor]) -> Tensor:
        """The highest Q-value of observations, float32 (n, 1); the name is SB3's."""
        values: Tensor = self.q_net(obs).amax(-1, keepdim=True)
        return values

    def make_q_net(self) -> LanguageQNetwork:
        """A new network; SB3's name for it."""
        assert isinstance(self.action_space, spaces.Discrete)
        extractor = self.make_features_extractor()
        assert isinstance(extractor, CausalLMExtractor)
        return LanguageQNetwork(
            self.observation_space, self.action_space, extractor, self.sampling, self.q_scale
        ).to(self.device)

    def _build(self, lr_schedule: Schedule) -> None:
        """Make the networks and the optimizer; called by SB3's constructor."""
        self.q_net = self.make_q_net()
        # A copy and not another of the same arguments: one of these may be the model itself.
        self.q_net_target = copy.deepcopy(self.q_net).requires_grad_(False)
        self.q_net_target.set_training_mode(False)
        self.optimizer = self.optimizer_class(
            self.q_net.parameters(),
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
            "q_scale": self.q_scale,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }
