"""Texts of every rollout, in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agents.distributed.processes import processes_of
from agents.episodes import Episode
from agents.watching.episode_callback import EpisodeCallback, EpisodeCollector


class SampleLog(EpisodeCallback):
    """Writes texts of every rollout to a JSON-lines file.

    A line holds `timesteps`, `prompt`, `text`, `score`, `scores`, `token_ids` and `rewards`. Of
    several processes the first writes its own.

        model.learn(100_000, callback=SampleLog("samples.jsonl"))

    Args:
        path: The file; appended to.
        collector: Has the texts; None to put them together here.
        samples: Texts of each rollout to write.
    """

    def __init__(
        self, path: str | Path, collector: EpisodeCollector | None = None, samples: int = 8
    ) -> None:
        super().__init__(collector)
        self._path = Path(path)
        self._samples = samples

    def _on_rollout_end(self) -> None:
        if not processes_of(self.model).is_first:
            return
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            for episode in self.episodes[: self._samples]:
                file.write(json.dumps(self._record(episode), ensure_ascii=False) + "\n")

    def _record(self, episode: Episode) -> dict[str, Any]:
        return {
            "timesteps": self.num_timesteps,
            "prompt": episode.prompt,
            "text": episode.text,
            "score": round(episode.score, 6),
            "scores": {name: round(score, 6) for name, score in episode.scores.items()},
            "token_ids": episode.token_ids,
            "rewards": [round(reward, 6) for reward in episode.rewards],
        }
