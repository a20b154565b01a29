"""Looks after a training: warns once of what goes wrong, and stops what cannot go on."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from stable_baselines3.common.buffers import DictRolloutBuffer

from agents.algorithms.collect import TokenCollector
from agents.algorithms.groups import GroupAlgorithm
from agents.episodes import Outcome
from agents.health import symptoms
from agents.health.causes import in_reward, in_stock_update, observed_contexts, stock_batch
from agents.health.diverged import dated
from agents.watching.episode_callback import EpisodeCallback, EpisodeCollector
from agents.wording import say

TEXTS = 64
"""Texts that are looked at together: fewer may well be alike."""

PATIENCE = {
    "negative_kl": 1,
    "moved_before_step": 1,
    "far_steps": 3,
    "all_cut": 4,
    "same_scores": 5,  # a reward that is rarely paid may give nothing for a few rollouts
    "same_in_groups": 5,
    "no_entropy": 3,
}
"""Looks, one after another, after which a symptom is believed that is not plain."""

_OF_STOCK = ("actions", "rewards", "values", "log_probs", "advantages", "returns")


class Finding(NamedTuple):
    """What was found of a symptom.

    Attributes:
        name: The symptom.
        text: What there is to say of it, if it is there.
        is_plain: Whether it is believed at once.
    """

    name: str
    text: str | None
    is_plain: bool = False


class HealthWarning(UserWarning):
    """A training goes on, and something about it is not as it should be."""


class HealthCheck(EpisodeCallback):
    """Warns of what goes wrong in a training, once of each thing, with what to try.

    Looked for are a negative KL divergence from the reference, texts that are all cut, scores that
    are all the same, a policy that is another when it learns than when it wrote, updates that go
    too far, and a policy that tries nothing any more; see `agents.health.symptoms`. It draws no
    random numbers and changes nothing.

    The algorithms of `agents` stop by themselves when a loss, a gradient or a reward is a NaN.
    For Stable-Baselines3's own algorithms this callback does: at once for rewards, and one update
    late for losses, when bad weights may be there already.

    Args:
        collector: Has the episodes; None for one of its own. One that is given stands before it
            in the list of callbacks.
        console: Where to warn; None for `warnings.warn`, with `HealthWarning`.
        max_new_tokens: Budget of a text, if texts that use it up without success are worth a word.

    Attributes:
        warned: What was warned of, by name.

    Example:
        >>> from stable_baselines3 import PPO
        >>> from agents import HealthCheck, TransformerPolicy, make_sb3_vec_env
        >>> env = make_sb3_vec_env("TextGen-v0", n_envs=8)
        >>> model = PPO(TransformerPolicy, env, 1e-5).learn(1_000, callback=HealthCheck())
    """

    def __init__(
        self,
        collector: EpisodeCollector | None = None,
        console: Console | None = None,
        *,
        max_new_tokens: int | None = None,
    ) -> None:
        super().__init__(collector)
        self.warned: list[str] = []
        self._console = console
        self._max_new_tokens = max_new_tokens
        self._seen: list[Outcome] = []
        self._rollout: tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]] | None = None
        self._streaks: Counter[str] = Counter()
        self._looked_at: int | None = None  # updates that there were at the last look

    def state(self) -> dict[str, Any]:
        """What was seen and warned of, JSON-able; texts that were not looked at are not in it."""
        return {
            "warned": [*self.warned],
            "streaks": dict(self._streaks),
            "looked_at": self._looked_at,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state; from an empty one as from the start."""
        self.warned = [*state.get("warned", ())]
        self._streaks = Counter(state.get("streaks", {}))
        self._looked_at = state.get("looked_at")

    def _on_rollout_start(self) -> None:
        self._look_at_update()

    def _on_step(self) -> bool:
        rewards = np.asarray(self.locals["rewards"])
        if not np.isfinite(rewards).all():
            assert isinstance(self.model._last_obs, dict)
            contexts = observed_contexts(self.model._last_obs)
            tokens = np.asarray(self.locals["actions"]).reshape(-1)
            with dated(self.model):
                raise in_reward(contexts, tokens, rewards, {})
        return True

    def learned_from(self) -> dict[str, NDArray[Any]]:
        """The last rollout of one of SB3's on-policy algorithms, as `Diverged` has it; or empty."""
        return stock_batch(*self._rollout) if self._rollout is not None else {}

    def _on_rollout_end(self) -> None:
        buffer = getattr(self.model, "rollout_buffer", None)
        if isinstance(buffer, DictRolloutBuffer):
            # Not copied: SB3 makes new arrays for the next one, and for what it hands out.
            columns = {name: getattr(buffer, name) for name in _OF_STOCK}
            self._rollout = dict(buffer.observations), columns
        self._take(self._found_in_rollout())
        self._seen += self.outcomes
        if len(self._seen) >= TEXTS:
            self._take(self._found_in_texts(self._seen))
            self._seen = []

    def _on_training_end(self) -> None:
        self._look_at_update()

    def _look_at_update(self) -> None:
        """Look at what the last update logged, once: a run that goes on logs it again."""
        if self._looked_at == self.model._n_updates:
            return
        self._looked_at = self.model._n_updates
        logged = self.logger.name_to_value
        losses = {k: v for k, v in logged.items() if k.startswith("train/") and k.endswith("loss")}
        for name, loss in losses.items():
            if not np.isfinite(loss):
                with dated(self.model):
                    raise in_stock_update(self.model, name, float(loss), self.learned_from())
        self._take(self._found_in_update(logged))

    def _found_in_update(self, logged: Mapping[str, float]) -> Iterator[Finding]:
        kls = [logged[k] for k in ("policy/approxkl_avg", "train/approx_kl") if k in logged]
        if kls:
            update = kls[0], logged.get("train/clip_fraction", 0.0)
            yield Finding("far_steps", symptoms.far_steps(*update), symptoms.is_far(*update))
        if "policy/approxkl_first" in logged:
            kl = logged["policy/approxkl_first"]
            yield Finding("moved_before_step", symptoms.moved_before_step(kl))
        if "train/entropy_loss" in logged:
            yield Finding("no_entropy", symptoms.no_entropy(-logged["train/entropy_loss"]))

    def _found_in_rollout(self) -> Iterator[Finding]:
        algorithm = self.model
        if isinstance(algorithm, TokenCollector) and algorithm.reference is not None:
            sampling, buffer = algorithm.policy.sampling, algorithm.rollout_buffer
            # A filter keeps in the reference's what was drawn: that is no distribution any more.
            if not sampling.top_k and sampling.top_p == 1:
                kl = (buffer.log_probs - buffer.ref_log_probs)[buffer.written]
                yield Finding("negative_kl", symptoms.negative_kl(float(kl.sum()), len(kl)))

    def _found_in_texts(self, outcomes: list[Outcome]) -> Iterator[Finding]:
        yield Finding("all_cut", symptoms.all_cut(outcomes, self._max_new_tokens))
        yield Finding("same_scores", symptoms.same_scores(outcomes))
        if isinstance(self.model, GroupAlgorithm):
            yield Finding("same_in_groups", symptoms.same_in_groups(outcomes))

    def _take(self, findings: Iterator[Finding]) -> None:
        """Warn of what was found often enough, one after another."""
        for name, text, is_plain in findings:
            self._streaks[name] = self._streaks[name] + 1 if text is not None else 0
            is_believed = is_plain or self._streaks[name] >= PATIENCE[name]
            if text is None or name in self.warned or not is_believed:
                continue
            self.warned.append(name)
            text = f"After {self.num_timesteps:,} tokens, {text}"
            if self._console is None:
                warnings.warn(text, HealthWarning, stacklevel=2)
            else:
                say(self._console, f"Warning. {text}", "yellow")
