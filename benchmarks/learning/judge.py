"""What a model writes on held-out prompts: judged the same way whoever trained it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from comparison.clock import Clock

from agents.evaluation import Written, write
from agents.language_policy import LanguagePolicy
from agents.log_probs import LOGITS_BUDGET
from agents.reference import Reference
from agents.scoring import score
from agents.sequences import TokenSequence, sequence_batches
from agents.vec_env import make_sb3_vec_env
from learning.trial import Point, Trial

SEED = 3_000_000
"""Texts are drawn with this plus the seed of the run; no training has it."""

ROWS = 80
"""Texts that are written side by side."""

MAX_TOKENS = 8_192


@dataclass(frozen=True)
class Judgement:
    """What a point says of the texts."""

    score: float
    std: float
    texts: int
    kl: float
    length: float


class Judge:
    """Lets a policy write on the prompts of a split, each as often as it takes.

    Args:
        trial: Says which prompts, and how many texts.
        policy: The policy before its training.
    """

    def __init__(self, trial: Trial, policy: LanguagePolicy) -> None:
        self._trial = trial
        self._reference = Reference(policy)  # type: ignore[arg-type]  # asks for its backbone only
        self._env = make_sb3_vec_env(
            "TextGen-v0",
            min(ROWS, trial.texts_at_ends),
            env_kwargs=trial.config.env_kwargs(trial.split),
        )
        process = self._env.get_attr("process")[0]
        prompts = len(process.task.split(trial.split))
        self._prompts = [{"prompt_index": index % prompts} for index in range(trial.texts_at_ends)]

    def __call__(self, policy: LanguagePolicy, texts: int) -> Judgement:
        """Judge a policy by so many texts, whatever the temperature at which it learns."""
        with policy.at_temperature(self._trial.temperature):
            written = write(
                policy,
                self._env,
                self._prompts[:texts],
                seed=SEED + self._trial.seed,
                deterministic=self._trial.greedy,
            )
            kl = float("nan") if self._trial.greedy else self._divergence(policy, written)
        scores = np.array([each.episode.score for each in written])
        return Judgement(
            score=float(scores.mean()),
            std=float(scores.std(ddof=1)),
            texts=len(scores),
            kl=kl,
            length=float(np.mean([len(each.episode.token_ids) for each in written])),
        )

    def point(
        self, policy: LanguagePolicy, tokens: int, clock: Clock, trained: Sequence[float]
    ) -> Point:
        """A point of a learning curve; the clock stands.

        Args:
            policy: As it is by now.
            tokens: That training has written.
            clock: Says what it took.
            trained: Scores of the texts that it has written since the point before.
        """
        at_an_end = not 0 < tokens < self._trial.budget
        found = self(policy, self._trial.texts_at_ends if at_an_end else self._trial.texts_between)
        mean = float(np.mean(trained)) if trained else float("nan")
        return Point(tokens, clock.processor, clock.wall, **vars(found), trained=mean)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    @torch.no_grad()
    def _divergence(self, policy: LanguagePolicy, written: list[Written]) -> float:
        """Log-probabilities of the texts minus those before training, the mean over texts."""
        sequences = []
        for each in written:
            ids = np.array(each.episode.token_ids)
            # Nothing holds these texts, so that their places in it do not matter.
            sequences.append(TokenSequence(each.contexts[0][1], ids, np.zeros_like(ids)))
        total = 0.0
        for batch in sequence_batches(sequences, MAX_TOKENS, policy.device):
            _, now, _ = score(policy.backbone, policy.sampling, batch, LOGITS_BUDGET)
            before = self._reference.log_probs(policy.sampling, batch)
            total += float((now - before).sum())
        return total / len(written)
