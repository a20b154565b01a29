"""Carries out a run, whoever trains."""

from __future__ import annotations

from learning import course, trl_course
from learning.trial import Point, Trial


def train(trial: Trial) -> list[Point]:
    """Carry out a run, and return the points of its learning curve."""
    by = {"textgym": course.train, "trl": trl_course.train}
    return by[trial.trainer](trial)
