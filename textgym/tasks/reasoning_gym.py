"""Questions whose answers a program can judge: the datasets of reasoning_gym."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from textgym import verifiers
from textgym.extras import require
from textgym.tasks.base import Example, Task
from textgym.tasks.splitting import check_fractions, hold_out

if TYPE_CHECKING:
    from textgym.completion import Sample

_WANTED_BY = "task 'reasoning_gym'"

_INSTRUCTIONS = {
    "text": "",
    "last_line": "Write the final answer alone on the last line.",
    "tags": "Write the final answer between <answer> and </answer>.",
}

_FAR_APART = 2**20
"""Between the seeds of datasets: question number i of a dataset is made with its seed + i."""


def reasoning_gym(
    name: str,
    size: int = 1000,
    *,
    config: Mapping[str, Any] | None = None,
    level: int | None = None,
    extract: str = "text",
    instruction: str | None = None,
    allow_eval: bool = False,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Task:
    r"""Answer questions of any dataset of reasoning_gym: sums, puzzles, logic, games, code.

        textgym train --task reasoning_gym:chain_sum
        gym.make("TextGen-v0", task={"name": "reasoning_gym:chain_sum",
                                     "config": {"min_terms": 2, "max_terms": 3, "max_digits": 1}})
        gym.make("TextGen-v0", task={"name": "reasoning_gym:leg_counting", "extract": "tags"})

    **Datasets.** Over a hundred, each of which makes as many questions as are wanted; a name that
    does not exist is answered with all that do. Easy ones for a small model: "chain_sum",
    "basic_arithmetic", "letter_counting", "word_sorting", "spell_backward", "number_filtering".

    **Prompts.** The question as it stands, then the instruction on a line of its own, if there is
    one. Some questions are long: of more than 3000 characters in "boxnet".

    **References.** The right answer, or one of them. Some datasets have none, since the answer is
    judged by what it does: boxnet, graph_color, propositional_logic, rubiks_cube, rush_hour. The
    column `metadata` is what the verifier knows of the question besides.

    **Splits.** `size` questions are made, of which those that came before are dropped. A tenth is
    held out for validation and a tenth for tests, by content. A dataset that has fewer different
    questions gives fewer: sums of two digits are soon all asked. Other seeds make other questions,
    but where there are few they come again: do not train with one seed and test with another. Most
    datasets make a thousand in a second; futoshiki, knight_swap and zebra_puzzles take up to half
    a second each, others at a high level longer still.

    **Reward.** The dataset's own verifier, `{"name": "verifier", "dataset": name, ...}`, from 0
    to 1; see `textgym list rewards verifier`. Many give partial credit, which is paid as the text
    earns it. A text that a verifier cannot read earns 0.

    **Success.** The verifier gives the whole text 1. For a prompt that is not the task's own it
    cannot be said and counts as no success.

    **Source.** The package reasoning-gym (Apache licence 2.0): Z. Stojanovski et al., Reasoning
    Gym: Reasoning Environments for Reinforcement Learning with Verifiable Rewards, 2025. Nothing
    is downloaded.

    Args:
        name: Name of the dataset, such as "chain_sum".
        size: How many questions to make, in all splits together.
        config: The dataset's configuration, which makes it easier or harder; a name that does not
            exist is answered with those that do.
        level: Its difficulty instead, from 0 for the easiest, as reasoning_gym's curriculum for
            the dataset sets the configuration; what `config` says goes before. Each of a
            curriculum's settings stops at its own last level.
        extract: Where in a text the answer is: "text", "last_line" or "tags"; see the reward. With
            "tags" a model may think aloud first. Plain texts then stop at "</answer>".
        instruction: What is asked beside the question; None takes what fits `extract`, which is
            nothing for "text". "" asks nothing.
        allow_eval: Whether the verifier may run the model's text as Python code, which some do;
            see the reward.
        validation_fraction: Share of the questions to hold out for validation, from 0 (no such
            split) to below 1.
        test_fraction: The same for the test split.
        seed: Makes the questions and chooses which are held out.

    Raises:
        ValueError: If there is no such dataset, reasoning_gym refuses its configuration, the
            verifier runs code and may not, or another value is refused.
        TypeError: If the configuration holds something that JSON cannot.
        MissingExtra: If reasoning_gym is not installed.
    """
    fractions = {"validation": validation_fraction, "test": test_fraction}
    check_fractions(fractions)
    _check(size, seed, extract, config)
    config = {**_level(name, level), **(config or {})}
    solved = Solved(name, config, extract)
    verifiers.dataset(name, config, _WANTED_BY)
    verifiers.check_may_run(name, allow_eval, _WANTED_BY)
    asked = _INSTRUCTIONS[extract] if instruction is None else instruction
    examples = _examples(name, config, size, seed, asked)
    reward = {
        "name": "verifier",
        "dataset": name,
        "config": config,
        "extract": extract,
        "allow_eval": allow_eval,
    }
    return Task(
        f"reasoning_gym:{name}",
        hold_out(examples, fractions, seed),
        reward=reward,
        success=solved,
        stop=("</answer>",) if extract == "tags" else (),
    )


@dataclass(frozen=True)
class Solved:
    """Whether the verifier of a dataset gives a text 1.

    Args:
        dataset: The dataset.
        config: Its configuration.
        extract: Where in the text the answer is.
    """

    dataset: str
    config: Mapping[str, Any] = field(hash=False)
    extract: str

    def __call__(self, sample: Sample) -> bool:
        """Whether this text is right; False for a prompt that is no question of the dataset."""
        if "metadata" not in sample.columns:
            return False
        entry = {
            "question": sample.prompt,
            "answer": sample.reference,
            "metadata": sample.columns["metadata"],
        }
        judge = verifiers.dataset(self.dataset, self.config, _WANTED_BY)
        answer = verifiers.find_answer(sample.text, self.extract)
        return verifiers.score(judge, answer, entry) >= 1.0


def _check(size: Any, seed: Any, extract: Any, config: Mapping[str, Any] | None) -> None:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size is a whole number of at least 1, got {size!r}.")
    if not isinstance(seed, int) or not 0 <= seed < 2**32 // _FAR_APART:
        raise ValueError(f"seed is a whole number from 0 to 4095, got {seed!r}.")
    if extract not in verifiers.EXTRACTS:
        raise ValueError(
            f"extract is one of {', '.join(map(repr, verifiers.EXTRACTS))}, got {extract!r}."
        )
    for own in ("size", "seed"):
        if own in (config or {}):
            raise ValueError(f"{own} is a parameter of the task; take it out of config.")


def _level(name: str, level: int | None) -> dict[str, Any]:
    """The configuration of a level of the dataset's curriculum."""
    if level is None:
        return {}
    factory = require("reasoning_gym", extra="verifier", wanted_by=_WANTED_BY).factory
    if name not in factory.CURRICULA:
        raise ValueError(
            f"reasoning_gym has no curriculum for {name!r}, and so no levels. Set its difficulty "
            "with config."
        )
    if not isinstance(level, int) or level < 0:
        raise ValueError(f"level is a whole number of at least 0, got {level!r}.")
    curriculum = factory.create_curriculum(name)
    for key, attribute in curriculum.attributes.items():
        curriculum.set_attr_level(key, min(level, len(attribute.levels) - 1))
    made = curriculum.generate_configuration()
    fields = ("field_name", "lower_field_name", "upper_field_name")
    return {
        getattr(attribute, field): getattr(made, getattr(attribute, field))
        for attribute in curriculum.attributes.values()
        for field in fields
        if hasattr(attribute, field)
    }


def _examples(
    name: str, config: Mapping[str, Any], size: int, seed: int, instruction: str
) -> list[Example]:
    """So many questions, but those that were asked before."""
    source = {**config, "size": size, "seed": seed * _FAR_APART}
    dataset = verifiers.dataset(name, source, _WANTED_BY)
    made: dict[str, Example] = {}
    with _chance(seed):
        for index in range(size):
            entry = dataset[index]
            question = entry["question"]
            prompt = f"{question}\n{instruction}\n" if instruction else question
            example = Example(prompt, entry["answer"], {"metadata": entry["metadata"]})
            made.setdefault(prompt, example)
    return list(made.values())


@contextmanager
def _chance(seed: int) -> Iterator[None]:
    """Let Python's own generator begin with a seed: list_functions draws from it as well."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
