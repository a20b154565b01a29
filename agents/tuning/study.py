"""What Optuna knows of a sweep: what was tried, what came of it, and what to try next."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from agents.config_checks import foreign_to
from agents.tuning.board import Report
from agents.tuning.config import TuneConfig
from agents.tuning.trial import Outcome

JOURNAL = "study.journal"
"""The file of Optuna's journal; optuna.org's own tools read it, too."""

_NAME = "sweep"
_OUTCOME, _DEATHS, _VALUES, _TOKENS = "outcome", "deaths", "values", "tokens"

_STARTUP = 4
"""Trials that end whole before any is pruned."""

_WARMUP = 2
"""The first look at which a trial is pruned: learning begins slowly."""

_ENOUGH = 8
"""Trials from which it can be told which settings mattered."""

_BEGUN = tuple(state for state in TrialState if state != TrialState.WAITING)

_STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Record:
    """A trial.

    Attributes:
        number: From 0 on.
        values: The settings that it drew.
        outcome: How it ended; None if it has not.
        deaths: How often its worker died.
        looks: Scores by look, of those that it reported and that are finite.
        tokens: Tokens that it had learned from, by look.
    """

    number: int
    values: Mapping[str, Any]
    outcome: Outcome | None
    deaths: int
    looks: Mapping[int, float]
    tokens: Mapping[int, int]


class Study:
    """Optuna's study of a sweep, with its journal on the disk: a killed driver goes on with it.

    Candidates come from a tree-structured Parzen estimator, or one by one where all are tried;
    pruning from the median of the trials that ended. A trial that has not ended is still running
    for Optuna, and is taken up again.

    Args:
        config: The sweep.
        directory: Where the journal is.
    """

    def __init__(self, config: TuneConfig, directory: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(directory / JOURNAL))),
            study_name=_NAME,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(_STARTUP, _WARMUP),
        )
        for texts in config.grid or ():
            self._study.enqueue_trial(texts, skip_if_exists=True)

    @property
    def records(self) -> list[Record]:
        """All trials that have begun."""
        return [_record(trial) for trial in self._study.get_trials(deepcopy=False, states=_BEGUN)]

    @property
    def left(self) -> int:
        """How many trials have not begun."""
        if self._config.grid is not None:
            waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            return len(waiting)
        return max(self._config.trials - len(self.records), 0)

    @property
    def unfinished(self) -> list[int]:
        """Trials that were cut, by number."""
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in waiting]

    def begin(self) -> int:
        """Draw a new trial; returns its number."""
        number = len(self.records)
        # By its number, so that a sweep that goes on does not draw what it has drawn before.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=self._config.seed + number, constant_liar=True
        )
        trial = self._study.ask()
        self._draw(trial)
        return trial.number

    def values(self, number: int) -> dict[str, Any]:
        """The settings that a trial drew."""
        return self._draw(self._trial(number))

    def died(self, number: int) -> int:
        """Note that a trial's worker died; returns how often that has happened."""
        trial = self._trial(number)
        deaths: int = trial.user_attrs.get(_DEATHS, 0) + 1
        trial.set_user_attr(_DEATHS, deaths)
        return deaths

    def hear(self, report: Report) -> bool:
        """Note a score; returns whether the trial shall be pruned."""
        trial = self._trial(report.number)
        known = self._frozen(report.number).intermediate_values
        # A trial that went on from a checkpoint measures again what it had measured after that.
        if report.score is not None and report.look not in known:
            trial.report(report.score, report.look)
            tokens = trial.user_attrs.get(_TOKENS, {})
            trial.set_user_attr(_TOKENS, {**tokens, str(report.look): report.timesteps})
        return self._config.prune and trial.should_prune()

    def end(self, number: int, outcome: Outcome) -> None:
        """Note how a trial ended; one that was stopped can go on."""
        self._trial(number).set_user_attr(_OUTCOME, asdict(outcome))
        if outcome.state != "stopped":
            state = _STATES[outcome.state]
            value = outcome.score if state == TrialState.COMPLETE else None
            self._study.tell(number, value, state=state)

    def importances(self) -> dict[str, float]:
        """How much each setting mattered, in parts of all; empty if it cannot be told yet."""
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        scores = {trial.value for trial in done}
        names = [each.name for each in self._config.space]
        shared = [name for name in names if all(name in trial.params for trial in done)]
        if len(done) < _ENOUGH or len(scores) < 2 or len(shared) < 2:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(
            self._study, evaluator=evaluator, params=shared
        )

    def _draw(self, trial: Trial) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for dimension in self._config.space:  # the algorithm comes first
            if dimension.name not in foreign_to(values.get("algo", self._config.algo)):
                values[dimension.name] = dimension.suggest(trial)
        trial.set_user_attr(_VALUES, _plain(values))
        return values

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _trial(self, number: int) -> Trial:
        """A trial that has not ended, as Optuna lets it be changed."""
        return Trial(self._study, self._frozen(number)._trial_id)


def best_of(records: Sequence[Record]) -> Record | None:
    """The trial with the best score, of those that were trained to their end."""
    done = [each for each in records if each.outcome is not None and each.outcome.state == "done"]
    return max(done, key=score_of, default=None)


def score_of(record: Record) -> float:
    """The score of a trial that has one, and of others that which is below all."""
    scores = [*record.looks.values()]
    if record.outcome is not None and record.outcome.score is not None:
        scores.append(record.outcome.score)
    return max(scores, default=float("-inf"))


def _record(trial: FrozenTrial) -> Record:
    outcome = trial.user_attrs.get(_OUTCOME)
    return Record(
        trial.number,
        trial.user_attrs.get(_VALUES, trial.params),
        None if outcome is None else Outcome(**outcome),
        trial.user_attrs.get(_DEATHS, 0),
        {at: score for at, score in trial.intermediate_values.items() if math.isfinite(score)},
        {int(at): tokens for at, tokens in trial.user_attrs.get(_TOKENS, {}).items()},
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain
