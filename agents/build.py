"""The algorithm of a run, as its settings say."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents.config import RunConfig
from agents.supervised.demonstrations import Demonstrations
from textgym.process import TextProcess


def build_algorithm(config: RunConfig, env: VecEnv, process: TextProcess) -> BaseAlgorithm:
    """The algorithm, as it begins."""
    imitates: dict[str, Any] = {}
    if config.sft_coef > 0:
        imitates["sft_data"] = _to_imitate(config, process)
    kind: Any = config.algorithm.kind
    algorithm: BaseAlgorithm = kind(
        config.algorithm.policy, env, **config.algorithm_kwargs(), **imitates
    )
    # How many numbers were drawn to make the network shall make no difference.
    algorithm.set_random_seed(config.seed)
    return algorithm


def _to_imitate(config: RunConfig, process: TextProcess) -> Demonstrations:
    """The texts of a mixed loss: of the task, as the environment puts its prompts, or a corpus."""
    context_length = process.prompts.context_length
    if config.sft_corpus:
        return Demonstrations.of_corpus(config.sft_corpus, process.tokenizer, context_length)
    return Demonstrations.of_task(
        process.task,
        "train",
        process.format,
        templates=[template.text for template in process.prompts.templates],
        max_new_tokens=config.max_new_tokens,
        context_length=context_length,
        prompt_truncation=config.prompt_truncation,
    )
