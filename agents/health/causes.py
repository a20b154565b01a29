"""What a NaN or an infinity comes from, as far as can be seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from agents.finite import first_non_finite, rows_with_non_finite
from agents.health.diverged import Diverged, batch_of_texts
from agents.language_policy import LanguagePolicy, language_policy

if TYPE_CHECKING:
    from agents.algorithms.collect import TokenCollector
    from agents.algorithms.dqn import TokenDQN
    from agents.buffer import Segment, TokenRolloutBuffer
    from agents.replay import TextSamples

FAR = 10.0
"""A log-ratio, in nats of one token, that no sound update comes to."""

HUGE = 1e15
"""A reward that no sound one comes to; its square is near the end of float32."""

_MEND_REWARD = (
    "mend what pays: look for a division by zero, a logarithm of zero, or a sum that overflows. "
    "Rewards of textgym are checked where they are paid; this came from a wrapper (VecNormalize, "
    "say) or from an environment of your own."
)


def in_writing(
    policy: LanguagePolicy,
    contexts: Sequence[NDArray[Any]],
    tokens: NDArray[np.int64],
    log_probs: NDArray[np.float32],
    values: NDArray[np.float32],
) -> Diverged:
    """What a policy says of the next token of n texts is not finite.

    Args:
        policy: What writes.
        contexts: What it read, token ids for each text.
        tokens: What it drew, (n,).
        log_probs: (n,).
        values: (n,).
    """
    what = "log-probability" if rows_with_non_finite(log_probs) else "value"
    bad = rows_with_non_finite(log_probs) or rows_with_non_finite(values)
    where = f"{len(bad)} of {len(tokens)} texts that are being written"
    columns = {"log_probs": log_probs, "values": values}
    batch = batch_of_texts(contexts, [*tokens[:, None]], _one_each(columns))
    return Diverged(f"the {what} of a token is not finite, in {where}", *of_policy(policy), batch)


def in_reward(
    contexts: Sequence[NDArray[Any]],
    tokens: NDArray[np.int64],
    rewards: NDArray[np.floating[Any]],
    noted: Mapping[str, NDArray[np.float32]],
) -> Diverged:
    """A reward of the tokens (n,) just written is not finite; the weights are as they were.

    Args:
        contexts: What stood before the tokens, for each of them.
        tokens: (n,).
        rewards: (n,).
        noted: What else there is of them for the batch, (n,) by name.
    """
    row = rows_with_non_finite(rewards)[0]
    columns = {"rewards": rewards, **noted}
    return Diverged(
        f"the reward of a token is {rewards[row]}, that of text {row} in the batch",
        "the environment paid it; nothing was learned from it.",
        _MEND_REWARD,
        batch_of_texts(contexts, [*tokens[:, None]], _one_each(columns)),
        by_reward=True,
    )


def in_distribution(policy: LanguagePolicy, logits: torch.Tensor) -> Diverged:
    """The logits (n, vocabulary) of which a policy is to make a distribution are not finite."""
    bad = int((~logits.isfinite()).any(-1).sum())
    found = f"the logits of the next token are not finite, in {bad} of {len(logits)} texts"
    return Diverged(found, *of_policy(policy))


def in_update(
    algorithm: TokenCollector, segments: Sequence[Segment], loss: float, norm: float
) -> Diverged:
    """A mini-batch's loss, or the norm of its gradient, is not finite.

    The mini-batch is read again, with the weights as they are, which are those of the last good
    step.

    Args:
        algorithm: What learns.
        segments: The mini-batch.
        loss: Its mean loss.
        norm: Of its gradient.
    """
    batch = _learned_from(algorithm, segments)
    new, old = batch["new_log_probs"], batch["log_probs"]
    farthest = float(np.abs(new - old).max())
    written = [name for name in ("rewards", "advantages", "returns") if _is_bad(batch[name])]
    largest_reward = float(np.abs(batch["rewards"]).max())
    by_reward = bool(written) or largest_reward > HUGE
    if by_reward and not written:
        why = f"rewards are up to {largest_reward:.3g}: the squares of such numbers overflow."
        cure = "rewards of a smaller scale. " + _MEND_REWARD.capitalize()
    elif written:
        why = (
            f"{' and '.join(written)} of the rollout are not finite: a reward, or a sum of "
            "rewards, overflows."
        )
        cure = _MEND_REWARD
    elif _is_bad(new) or _is_bad(batch["new_values"]):
        why, cure = of_policy(algorithm.policy)
    elif farthest > FAR:
        why = (
            f"the policy has moved so far since it wrote these texts that the log-probability of a "
            f"token changed by {farthest:.0f} nats: the probability ratio overflows."
        )
        cure = f"{_smaller_steps(algorithm.policy)}, or fewer passes (n_epochs, target_kl)."
    else:
        largest = float(np.abs(batch["advantages"]).max())
        why = (
            f"it overflows on its way through the model: weights are up to "
            f"{_largest(algorithm.policy):.3g}, and advantages up to {largest:.3g}."
        )
        cure = f"{_smaller_steps(algorithm.policy)}, or rewards of a smaller scale."
    found = _loss_or_gradient(loss, norm)
    return Diverged(found, why, cure, batch, by_reward=by_reward)


def in_q_update(
    algorithm: TokenDQN,
    samples: TextSamples,
    q_values: torch.Tensor,
    targets: torch.Tensor,
    loss: float,
    norm: float,
) -> Diverged:
    """The same of Q-learning, for the steps that were drawn."""
    columns = {
        "before": samples.before[1],
        "after": samples.after[1],
        "actions": samples.actions[:, 0],
        "rewards": samples.rewards[:, 0],
        "dones": samples.dones[:, 0],
        "q_values": q_values[:, 0],
        "targets": targets[:, 0],
    }
    batch = {"input_ids": samples.input_ids, "texts": samples.before[0], **columns}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in batch.items()}
    count = len(arrays["input_ids"])
    first, last = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    np.minimum.at(first, arrays["texts"], arrays["before"])
    np.maximum.at(last, arrays["texts"], arrays["after"])
    arrays["lengths"] = last + 1
    arrays["context_lengths"] = np.minimum(first, last) + 1
    by_reward = _is_bad(arrays["rewards"])
    if by_reward:
        why, cure = "rewards that were stored are not finite.", _MEND_REWARD
    elif first_non_finite(algorithm.policy) is not None or _is_bad(arrays["q_values"]):
        why, cure = of_policy(algorithm.policy)
    else:
        largest = {name: f"{np.abs(arrays[name]).max():.3g}" for name in ("q_values", "rewards")}
        why = (
            f"it overflows: what is expected of texts is up to {largest['q_values']}, and rewards "
            f"up to {largest['rewards']}; Q-values that learn from Q-values may grow without end."
        )
        cure = (
            f"{_smaller_steps(algorithm.policy)}, rewards of a smaller scale, a larger "
            "target_update_interval, or a gamma below 1."
        )
    return Diverged(_loss_or_gradient(loss, norm), why, cure, arrays, by_reward=by_reward)


def in_stock_update(
    algorithm: BaseAlgorithm, name: str, loss: float, batch: Mapping[str, NDArray[Any]]
) -> Diverged:
    """An update of one of Stable-Baselines3's own algorithms logged a loss that is not finite.

    Args:
        algorithm: What learns.
        name: What it logged.
        loss: What that was.
        batch: The rollout that it learned from, as `Diverged` has it.
    """
    policy = language_policy(algorithm.policy)
    why = "Stable-Baselines3 takes its steps without a look at the loss"
    spoilt = first_non_finite(policy)
    why += ", and has taken it." if spoilt is None else f": weights are spoilt, first {spoilt}."
    cure = f"{_smaller_steps(policy)}, or TokenPPO and its like, which stop before such a step."
    return Diverged(f"{name} of the last update is {loss:g}", why, cure, batch)


def in_supervised_update(
    model: nn.Module, loss: float, norm: float, cure: str, batch: Mapping[str, NDArray[Any]]
) -> Diverged:
    """The loss of texts that are imitated, or the norm of its gradient, is not finite.

    Args:
        model: What learns, as it was before.
        loss: The mean loss.
        norm: Of its gradient.
        cure: What to try.
        batch: The texts, as `Diverged` has them.
    """
    spoilt = first_non_finite(model)
    why = f"it overflows on its way through the model: weights are up to {_largest(model):.3g}."
    if spoilt is not None:
        why = f"the weights are not finite, the first in {spoilt}: the model came so."
    return Diverged(_loss_or_gradient(loss, norm), why, cure, batch)


def observed_contexts(observations: Mapping[str, NDArray[Any]]) -> list[NDArray[np.int64]]:
    """The token ids of observations (n, L), without padding."""
    ids, lengths = observations["input_ids"], observations["attention_mask"].sum(1)
    whole = zip(ids.astype(np.int64), lengths.astype(np.int64), strict=True)
    return [row[:length] for row, length in whole]


def stock_batch(
    observations: Mapping[str, NDArray[Any]], columns: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """A rollout of Stable-Baselines3's as `Diverged` has it, a row for each of its T * n steps.

    Args:
        observations: (T, n, L).
        columns: (T, n) by name, and `actions`, (T, n, 1).
    """
    flat = {name: array.reshape(-1, array.shape[-1]) for name, array in observations.items()}
    numbers = {name: column.reshape(-1) for name, column in columns.items()}
    tokens = numbers.pop("actions").astype(np.int64)
    return batch_of_texts(observed_contexts(flat), [*tokens[:, None]], _one_each(numbers))


def of_policy(policy: LanguagePolicy) -> tuple[str, str]:
    """Why a policy's outputs are not finite, and what to try."""
    name = first_non_finite(policy)
    if name is not None:
        return (
            f"the policy's weights are not finite, the first in {name}: the model came so, or a "
            "step was taken that was not looked at, as Stable-Baselines3's own algorithms do.",
            f"a model whose weights are finite, and {_smaller_steps(policy)}.",
        )
    return (
        f"all weights are finite, the largest {_largest(policy):.3g}, and what the model "
        "makes of them is not: its layers overflow.",
        f"{_smaller_steps(policy)}.",
    )


def _largest(model: nn.Module) -> float:
    return max(float(weights.detach().abs().max()) for weights in model.parameters())


def _smaller_steps(policy: LanguagePolicy) -> str:
    rate = policy.optimizer.param_groups[0]["lr"]
    more = "" if policy.backbone.dtype == "float32" else ", dtype float32"
    return f"a lower learning rate (it is {rate:g}), a smaller max_grad_norm{more}"


def _loss_or_gradient(loss: float, norm: float) -> str:
    if np.isfinite(loss):
        return f"the gradient's norm is {norm:g}, of a loss of {loss:g}"
    return f"the loss is {loss:g}"


def _learned_from(
    algorithm: TokenCollector, segments: Sequence[Segment]
) -> dict[str, NDArray[Any]]:
    """A mini-batch as `Diverged` describes it."""
    buffer: TokenRolloutBuffer = algorithm.rollout_buffer
    new = {n: np.zeros_like(buffer.values) for n in ("new_values", "new_log_probs")}
    with torch.no_grad():
        for batch in buffer.sequence_batches(segments, algorithm.micro_batch_tokens):
            scored = algorithm.policy.evaluate_sequences(batch, algorithm.logits_budget)
            for name, column in zip(new, scored, strict=False):
                new[name].reshape(-1)[batch.places] = column.cpu().numpy()
    names = ("rewards", "values", "log_probs", "ref_log_probs", "advantages", "returns")
    columns = {**{name: getattr(buffer, name) for name in names}, **new}
    places = [(slice(s.begin, s.end), s.row) for s in segments]
    return batch_of_texts(
        [segment.context for segment in segments],
        [buffer.actions[place] for place in places],
        {name: [column[place] for place in places] for name, column in columns.items()},
    )


def _one_each(columns: dict[str, NDArray[Any]]) -> dict[str, list[NDArray[Any]]]:
    return {name: [*column[:, None]] for name, column in columns.items()}


def _is_bad(numbers: NDArray[Any]) -> bool:
    return not np.isfinite(numbers).all()
