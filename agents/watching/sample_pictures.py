"""Texts in the writers of SB3's logger that show them: as text, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from stable_baselines3.common.logger import Image

from agents.episodes import Episode
from agents.watching.course import number
from agents.watching.episode_callback import EpisodeCallback, EpisodeCollector
from textgym.rendering import to_rgb_array
from textgym.tokenizer import Tokenizer

_FIGURES_ONLY = ("csv", "json", "log", "stdout")


class SamplePictures(EpisodeCallback):
    """Logs a few texts, and a picture of the first with every token coloured by its reward.

    They are `samples/texts` and `samples/token_rewards`, and go to TensorBoard, Weights & Biases
    and other writers that take text and pictures; not to SB3's tables.

        model.learn(100_000, callback=SamplePictures(every=10_000))

    Args:
        every: Tokens between two of them, at least; with the texts of the first rollout it begins.
        collector: Has the texts; None to put them together here.
        samples: Texts at a time.
    """

    def __init__(
        self, every: int, collector: EpisodeCollector | None = None, samples: int = 4
    ) -> None:
        super().__init__(collector)
        if every < 1:
            raise ValueError(f"every is {every}; it counts tokens, 1 or more.")
        self._every = every
        self._samples = samples

    def _on_training_start(self) -> None:
        process = self.training_env.get_attr("process", indices=[0])[0]
        self._tokenizer: Tokenizer = process.tokenizer
        # As if the run had been here all the time, so that one that goes on keeps the places.
        self._last = self.num_timesteps // self._every if self.num_timesteps else -1

    def _on_rollout_end(self) -> None:
        episodes = self.episodes[: self._samples]
        place = self.num_timesteps // self._every
        if not episodes or place == self._last:
            return
        self._last = place
        picture = to_rgb_array(episodes[0].transcript(self._tokenizer))
        self.logger.record("samples/texts", as_markdown(episodes), exclude=_FIGURES_ONLY)
        self.logger.record("samples/token_rewards", Image(picture, "HWC"), exclude=_FIGURES_ONLY)


def as_markdown(episodes: Sequence[Episode]) -> str:
    """Texts as a table, which TensorBoard reads: prompt, completion, score."""
    rows = [
        f"| {_cell(episode.prompt)} | {_cell(episode.text)} | {number(episode.score)} |"
        for episode in episodes
    ]
    return "\n".join(["| prompt | completion | score |", "|--|--|--:|", *rows])


def _cell(text: str) -> str:
    # As entities, lest what a model writes be read as markup.
    escaped = escape(text.strip())
    for mark in "|*_`[]\\":
        escaped = escaped.replace(mark, f"&#{ord(mark)};")
    return escaped.replace("\n", "<br>")
