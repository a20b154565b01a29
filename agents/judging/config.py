"""The settings of a comparison of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.candidates import Candidate
from agents.config import RunConfig
from agents.sampling import Sampling
from agents.specs import Spec, as_templates, as_vocabulary

OF_A_RUN = (
    "task",
    "reward",
    "every",
    "max_new_tokens",
    "context_length",
    "vocabulary",
    "stop",
    "prompt_truncation",
    "chat",
    "templates",
)
"""Settings that are those of the run that a model comes from, unless they are given."""

SAMPLING = ("temperature", "top_k", "top_p")
"""The same for how texts are drawn."""


@dataclass(frozen=True)
class EvalConfig:
    """Judge models on the same prompts, side by side.

    What is not said here of task, reward, budget and sampling is as in the runs that the models
    come from, so that they are judged as they were trained; and as for `textgym train` if none
    does.
    """

    model: tuple[str, ...] = ("builtin",)
    """One or more models: names (see `textgym list models`), directories, GGUF files, hub ids; a
    run stands for its model/. Scores are set against those of the first."""
    reference: str | None = None
    """The untrained model, for perplexity and KL. None is the one that a run says it began with,
    and of an adapter its base."""

    task: Spec | None = None
    """Where prompts come from: a name (see `textgym list`) or JSON."""
    split: str = "test"
    """Whose prompts: train, validation or test."""
    prompts: int | None = None
    """How many prompts of the split, from its first; None for all."""
    reward: Spec | None = None
    """What is a good text: a name, weights or JSON, as for `textgym train`."""
    timing: Literal["immediate", "delayed"] = "immediate"
    """Immediate colours every token of the texts that are shown. Delayed leaves scores as they
    are, and is quicker for rewards that cost."""
    every: Literal["token", "word", "sentence"] | None = None
    """How often an immediate score is taken."""
    max_new_tokens: int | None = None
    """Budget of a text, in tokens."""
    context_length: int | None = None
    """Tokens that a model is shown; None for what the longest prompt needs."""
    vocabulary: tuple[str, ...] | None = None
    """Words whose tokens may be written, or one text file with them."""
    stop: tuple[str, ...] | None = None
    """Strings that end a text."""
    prompt_truncation: Literal["error", "left"] | None = None
    """What becomes of prompts that do not fit: refused, or only their end is kept."""
    chat: bool | None = None
    """Put prompts as a conversation; None does so if the tokenizer has a chat template."""
    templates: tuple[str, ...] | None = None
    """Ways to put a prompt, such as "Question: {prompt}", which take turns over the prompts;
    None for the task's own."""
    tokenizer: str | None = None
    """Tokenizer of all models: as for a model; None takes each model's own."""

    decoding: Literal["both", "sampled", "greedy"] = "both"
    """Texts that are drawn, texts of the likeliest tokens, or both."""
    samples: int = 1
    """Texts for each prompt, where they are drawn."""
    temperature: float | None = None
    """Divides the logits; None for what the run has, else 1."""
    top_k: int | None = None
    """Draw only the k likeliest tokens, 0 for all; None for what the run has, else all."""
    top_p: float | None = None
    """Draw only the likeliest tokens that together have this probability, 1 for all; None for what
    the run has, else all."""
    seed: int = 0
    """Seed of the sampling."""

    show: int = 3
    """Prompts whose texts are printed side by side."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write eval.json, with every text, and eval.csv, with a row for each model and decoding,
    to this directory."""
    n_envs: int = 64
    """Texts written side by side: memory and speed."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the transformers."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps"."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "templates", as_templates(self.templates))
        if not self.model:
            raise ValueError("--model wants at least one model, such as --model runs/mine.")
        for name in ("prompts", "samples", "n_envs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be above 0, got {value}.")
        for name in ("show", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or above, got {getattr(self, name)}.")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(
                f"temperature must be above 0, got {self.temperature:g}. For the likeliest token "
                "each time give --decoding greedy."
            )
        self.sampling([])  # refuses what makes no sense

    @property
    def decodings(self) -> tuple[Literal["sampled", "greedy"], ...]:
        """How texts are written, in the order of the table."""
        return ("sampled", "greedy") if self.decoding == "both" else (self.decoding,)

    def settled(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """The settings in `OF_A_RUN` that are given here, or by the runs of the candidates.

        Those that are neither are left out: they are the environment's defaults.

        Raises:
            ValueError: If two runs differ in a setting that is not given.
        """
        settings = {"task": RunConfig.task, **self._given_or_agreed(OF_A_RUN, candidates)}
        if "vocabulary" in settings:
            settings["vocabulary"] = as_vocabulary(settings["vocabulary"])
        return settings

    def sampling(self, candidates: Sequence[Candidate]) -> Sampling:
        """How texts are drawn: as is said here, or as by the runs of the candidates.

        Raises:
            ValueError: As `settled`, or if a setting is refused.
        """
        return Sampling(**self._given_or_agreed(SAMPLING, candidates))

    def _given_or_agreed(
        self, names: Sequence[str], candidates: Sequence[Candidate]
    ) -> dict[str, Any]:
        found = {}
        for name in names:
            value = getattr(self, name)
            if value is None:
                value = _agreed(name, candidates)
            if value is not None:
                found[name] = value
        return found


def _agreed(name: str, candidates: Sequence[Candidate]) -> Any:
    """The value that all runs have of a setting; None if there is no run."""
    name_at_end = "final_temperature" if name == "temperature" else name
    of_runs = [(c.name, getattr(c.run, name_at_end)) for c in candidates if c.run is not None]
    for other, value in of_runs[1:]:
        if value != of_runs[0][1]:
            first, expected = of_runs[0]
            raise ValueError(
                f"{first} was trained with {name}={expected!r} and {other} with {name}={value!r}. "
                f"Say with --{name.replace('_', '-')} by which they are judged."
            )
    return of_runs[0][1] if of_runs else None
