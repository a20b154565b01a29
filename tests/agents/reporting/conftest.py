"""Runs written by hand, of which every figure is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SETTINGS = {
    "command": "train",
    "total_timesteps": 300,
    "seed": 0,
    "model": "builtin",
    "tokenizer": None,
    "task": "continuation",
    "reward": {"sentiment": 1.0, "length": 0.5},
    "timing": "immediate",
    "algo": "ppo",
    "learning_rate": None,
}

ABOUT = {
    "changed": ["total_timesteps", "reward"],
    "settled": {"learning_rate": 0.0001},
    "machine": {"device": "cpu"},
    "versions": {"textgym": "0.1.0"},
}

PROGRESS = [
    "time/total_timesteps,rollout/ep_rew_mean,rewards/sentiment/mean,rewards/length/mean,"
    "objective/kl,train/entropy_loss,train/learning_rate,validation/mean_score,validation/timesteps",
    "100,0.1,0.05,0.1,0.0,,0.0001,,",
    "200,0.3,0.20,0.2,0.5,-3.5,0.0001,0.25,100",
    "300,0.5,0.40,0.2,0.9,-3.25,0.0001,0.45,300",
]


def text(pieces: list[str], score: float = 0.0, **known: Any) -> dict[str, Any]:
    """A text as `write_texts` keeps it; what is not given is 0."""
    zeros = [0.0] * len(pieces)
    both = {"before": zeros, "after": zeros}
    return {
        "prompt": "Once",
        "text": "".join(pieces),
        "token_ids": list(range(len(pieces))),
        "rewards": zeros,
        "scores": {},
        "score": score,
        "success": None,
        "truncated": False,
        "replies": [],
        "context": "Once",
        "pieces": pieces,
        "silent": {},
        "components": {},
        "log_probs": both,
        "values": both,
        **known,
    }


@pytest.fixture(scope="session")
def make_text() -> Callable[..., dict[str, Any]]:
    return text


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run that ended, with these texts before and after and other settings."""

    def make(
        name: str = "run",
        texts: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None = None,
        progress: list[str] = PROGRESS,
        **settings: Any,
    ) -> Path:
        run = tmp_path / name
        run.mkdir()
        before, after = texts or ([text([" a"], 0.25)], [text([" b"], 0.75)])
        (run / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, **settings}, sort_keys=False))
        (run / "progress.csv").write_text("\n".join(progress) + "\n")
        result = {"what": "1 test prompt", "score_before": 0.25, "score_after": 0.75}
        (run / "result.json").write_text(json.dumps({**result, "timesteps": 300}))
        (run / "about.json").write_text(json.dumps(ABOUT))
        kept = {"what": "1 test prompt", "kept": 300, "before": before, "after": after}
        (run / "texts.json").write_text(json.dumps(kept))
        return run

    return make
