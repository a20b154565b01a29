"""Models write for the same prompts, and what they wrote is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agents.candidates import Candidate, find, find_all
from agents.devices import known_device
from agents.episodes import Episode
from agents.evaluation import Written, write
from agents.judging import table
from agents.judging.config import EvalConfig
from agents.judging.intervals import Estimate
from agents.judging.log_probs import log_probs
from agents.judging.measures import Likelihoods, gain, measure
from agents.judging.records import write_records
from agents.judging.untrained import NoReferenceError, References, Untrained
from agents.policy import TransformerPolicy
from agents.reporting.terminal import side_by_side, stacked
from agents.sampling import Sampling
from agents.vec_env import make_sb3_vec_env
from agents.wording import rewards_in_words, say
from textgym import tasks
from textgym.process import TextProcess
from textgym.tasks import Example, Task
from textgym.tasks.base import Stream
from textgym.tokenizer import Tokenizer

MOST_BESIDE = 3
"""Models whose texts a line has room for."""


@dataclass(frozen=True)
class Judgement:
    """What one model wrote in one way, and how good it is.

    Attributes:
        model: The model's name.
        decoding: How it wrote.
        reference: The untrained model; None if there is none.
        no_reference: Why there is none.
        figures: See `measure`; and `gain`, of the score over the first model's, in pairs of the
            same prompt.
        episodes: The texts, those for one prompt one after the other.
        samples: How many there are for each prompt.
        likelihoods: What models say of the texts; None without an untrained model.
        tokenizer: The model's tokenizer.
        is_chat: Whether its prompts were chat messages.
        weights: The weight of each reward, by name.
    """

    model: str
    decoding: Literal["sampled", "greedy"]
    reference: str | None
    no_reference: str | None
    figures: Mapping[str, Estimate]
    episodes: Sequence[Episode]
    samples: int
    likelihoods: Likelihoods | None
    tokenizer: Tokenizer
    is_chat: bool
    weights: Mapping[str, float]


def evaluate_models(config: EvalConfig, console: Console | None = None) -> list[Judgement]:
    """Judge models as the config says, print a table and texts, and write the files.

    Args:
        config: The settings.
        console: Where to print; the terminal if None.

    Returns:
        A judgement for each model and decoding, the models in their order.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the task has no such split or too few prompts, runs differ in a setting that
            is not given, or a setting is refused.
        textgym.RewardError: If the reward failed.
    """
    console = console or Console()
    device = known_device(config.device)
    candidates = find_all(config.model)
    settings, sampling = config.settled(candidates), config.sampling(candidates)
    task = tasks.make(settings["task"])
    examples = _examples(task, config)
    references = References(config.reference, candidates, config.dtype, device)
    judgements: list[Judgement] = []
    for candidate in candidates:
        env_kwargs = {
            **settings,
            # Only what is judged, so that contexts are no longer than it needs.
            "task": replace(task, splits={config.split: examples}),
            "split": config.split,
            "timing": config.timing,
            "tokenizer": candidate.source
            if config.tokenizer is None
            else find(config.tokenizer).source,
            "budget_is_terminal": False,  # so that texts which it cut can be told
        }
        with console.status(f"{escape(candidate.name)} writes for {len(examples)} prompts"):
            judgements += _judge(config, candidate, env_kwargs, sampling, len(examples), references)
    judgements = [_against_first(each, judgements) for each in judgements]

    settings = {"reward": task.reward, **settings, **sampling.settings()}
    where = f"{len(examples)} prompts of split {config.split!r}"
    what = f"task {task.name}, reward {rewards_in_words(judgements[0].weights)}"
    say(console, f"{where}, {what}", "bold")
    templates = settings.get("templates") or task.templates
    if templates:
        say(console, f"Prompts are put by {', in turn by '.join(map(repr, templates))}.")
    console.print(table.figures(judgements))
    for line in table.notes(judgements, config, sampling):
        say(console, line, "dim")
    if config.show:
        console.print(_shown(judgements, config.show))
    if config.output is not None:
        write_records(config.output, config, settings, judgements)
        paths = "\n".join(str(config.output / name) for name in ("eval.json", "eval.csv"))
        say(console, paths)
    return judgements


def _examples(task: Task, config: EvalConfig) -> tuple[Example, ...]:
    """The examples that are judged, the same for all models."""
    split = task.split(config.split)
    if isinstance(split, Stream):
        if config.prompts is None:
            raise ValueError(
                f"split {config.split!r} of task {task.name!r} has no end: say how many prompts "
                "of it with --prompts."
            )
        generators = (np.random.default_rng([config.seed, i]) for i in range(config.prompts))
        return tuple(split.draw(generator) for generator in generators)
    count = len(split) if config.prompts is None else config.prompts
    if count > len(split):
        raise ValueError(
            f"--prompts {count}: split {config.split!r} of task {task.name!r} has {len(split)}. "
            "Leave --prompts out to take all of them."
        )
    return tuple(split[index] for index in range(count))


def _judge(
    config: EvalConfig,
    candidate: Candidate,
    env_kwargs: Mapping[str, Any],
    sampling: Sampling,
    count: int,
    references: References,
) -> list[Judgement]:
    """What one model writes for so many prompts, in each of the ways that are asked for."""
    drawn_texts = count * config.samples if "sampled" in config.decodings else count
    rows = min(config.n_envs, drawn_texts)
    env = make_sb3_vec_env("TextGen-v0", rows, env_kwargs=env_kwargs)
    policy = TransformerPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 0.0,
        model=candidate.source,
        dtype=config.dtype,
        **sampling.settings(),
    ).to(references.device)
    process: TextProcess = env.get_attr("process")[0]
    tokenizer, weights = process.tokenizer, process.reward.current_weights
    untrained, reason = None, None
    try:
        untrained = references.of(candidate, policy, tokenizer)
    except NoReferenceError as error:
        reason = str(error)
    judgements = []
    for decoding in config.decodings:
        drawn = decoding == "sampled"
        samples = config.samples if drawn else 1
        prompts = [{"prompt_index": i} for i in range(count) for _ in range(samples)]
        written = write(policy, env, prompts, seed=config.seed, deterministic=not drawn)
        episodes = [each.episode for each in written]
        likelihoods = None if untrained is None else _likelihoods(policy, untrained, written)
        judgements.append(
            Judgement(
                candidate.name,
                decoding,
                None if untrained is None else untrained.name,
                reason,
                measure(episodes, samples, likelihoods, drawn=drawn),
                episodes,
                samples,
                likelihoods,
                tokenizer,
                process.format.is_chat,
                weights,
            )
        )
    env.close()
    return judgements


def _likelihoods(
    policy: TransformerPolicy, untrained: Untrained, written: Sequence[Written]
) -> Likelihoods:
    def sums(by_token: Sequence[Any]) -> Any:
        return np.array([of_text.sum(dtype=np.float64) for of_text in by_token])

    own = sums(log_probs(policy.backbone, policy.sampling, written))
    with untrained.active():
        plain = sums(log_probs(untrained.backbone, Sampling(), written))
        if policy.sampling == Sampling():
            return Likelihoods(own, plain, plain)
        return Likelihoods(
            own, sums(log_probs(untrained.backbone, policy.sampling, written)), plain
        )


def _against_first(judgement: Judgement, judgements: Sequence[Judgement]) -> Judgement:
    """A judgement with what its score has above that of the first model, if it is another."""
    first = next(each for each in judgements if each.decoding == judgement.decoding)
    if judgement is first:
        return judgement
    figures = dict(judgement.figures)
    score = figures.pop("score")
    over_first = gain(judgement.episodes, first.episodes, judgement.samples)
    return replace(judgement, figures={"score": score, "gain": over_first, **figures})


def _shown(judgements: Sequence[Judgement], rows: int) -> Table:
    """Texts of all models for the same prompts; drawn ones if there are."""
    decoding = judgements[0].decoding
    columns = [
        (each.model, each.episodes[:: each.samples], each.tokenizer)
        for each in judgements
        if each.decoding == decoding
    ]
    layout = side_by_side if len(columns) <= MOST_BESIDE else stacked
    return layout(f"Texts, {decoding}", columns, rows)
