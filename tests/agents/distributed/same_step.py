"""Lets processes learn from their rows of a rollout from which one has learned as a whole.

A program of its own, for `test_same_step.py`: it imports everything once, and all processes are
forks of it. Prints what came out for each number of processes and each algorithm.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes_of_test import fork
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger
from transformers import GPT2Config, GPT2LMHeadModel

from agents import GRPO, RLOO, Demonstrations, Reinforce, TokenA2C, TokenPPO, TransformerPolicy
from agents import make_sb3_vec_env as make
from agents.distributed.whole import whole
from agents.weights import trained_weights
from textgym.tokenizer import BUILTIN, Tokenizer

ROWS = 8
TEXTS = ["The sea is calm.", "It rains.", "A dog sleeps in the sun.", "Yes."]
ENV = {
    "reward": {"sentiment": 1.0, "length": {"name": "length", "target": 5}},
    "max_new_tokens": 9,
    "budget_is_terminal": True,
    "stop": ["e"],
}
PPO = {"n_steps": 12, "kl_coef": 0.1, "n_epochs": 2, "batch_size": 8}
GROUPS = {"group_size": 2, "kl_coef": 0.1}
VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ppo": (TokenPPO, {**PPO, "ent_coef": 0.01}),
    "ppo, all at once": (TokenPPO, {**PPO, "batch_size": None, "micro_batch_tokens": 40}),
    "ppo, stopped": (TokenPPO, {**PPO, "target_kl": 1e-4}),
    "ppo, adapters": (TokenPPO, {**PPO, "lora": {"r": 4}}),
    "ppo, imitating": (TokenPPO, {**PPO, "sft_coef": 0.5}),
    "ppo, sharded": (TokenPPO, {**PPO, "shard": True, "micro_batch_tokens": 40}),
    "ppo, sharded adapters": (TokenPPO, {**PPO, "shard": True, "lora": {"r": 4}}),
    "ppo, sharded, imitating": (TokenPPO, {**PPO, "shard": True, "sft_coef": 0.5}),
    "a2c": (TokenA2C, {"n_steps": 6, "kl_coef": 0.1}),
    "reinforce": (Reinforce, {"kl_coef": 0.1, "target_kl_ref": 1.0}),
    "grpo": (GRPO, {**GROUPS, "batch_size": 8, "n_epochs": 2}),
    "rloo": (RLOO, GROUPS),
}
TOKENIZER = Tokenizer.from_pretrained(BUILTIN)


def make_algorithm(variant: str, process: int = 0, count: int = 1) -> Any:
    """An algorithm with the rows of one of so many processes."""
    kind, settings = VARIANTS[variant]
    settings = dict(settings)
    lora = settings.pop("lora", None)
    if settings.get("batch_size"):
        settings["batch_size"] //= count  # of a process
    if "sft_coef" in settings:
        settings["sft_data"] = imitated(TEXTS[process::count])
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}
    sizes |= {"vocab_size": TOKENIZER.vocab_size, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    env = make("TextGen-v0", ROWS // count, env_kwargs=ENV)
    network = {"model": model, "lora": lora}
    algorithm = kind(TransformerPolicy, env, 1e-2, seed=0, policy_kwargs=network, **settings)
    algorithm.set_logger(Logger(None, []))
    rows = algorithm.rollout_buffer.n_envs
    algorithm.rollout_buffer.mini_batches = lambda count: by_rows(
        algorithm.rollout_buffer, count, process * rows
    )
    return algorithm


def imitated(texts: list[str]) -> Demonstrations:
    """Texts of which all are drawn each time, in their order."""
    demonstrations = Demonstrations.of_documents(texts, TOKENIZER)
    encoded = [variants[0] for variants in demonstrations._texts]
    length = sum(len(text.written) for text in encoded)
    draw, drawn = demonstrations.draw, iter(encoded * 1_000)
    demonstrations._draw = lambda: next(drawn)
    demonstrations.draw = lambda _, *rest: draw(length, *rest)
    return demonstrations


def by_rows(buffer: Any, count: int, first: int) -> Any:
    """Mini-batches of some rows; a process has much, little, or nothing at all of one."""
    for index in range(count):
        yield [each for each in buffer.segments if (first + each.row) ** 2 // 3 % count == index]


def collect(algorithm: Any) -> dict[str, Any]:
    """Write a rollout; what others need to have written the same."""
    algorithm._total_timesteps, algorithm._last_obs = 1_000, algorithm.env.reset()
    algorithm._last_episode_starts = np.ones(ROWS, bool)
    algorithm.ep_info_buffer, algorithm.ep_success_buffer = [], []
    buffer, last = algorithm.rollout_buffer, {}
    estimate, sum_up = algorithm._estimate_advantages, algorithm._sum_up
    algorithm._estimate_advantages = lambda *ends: last.update(ends=ends) or estimate(*ends)

    def note(buffer: Any, paid: Any, dones: Any) -> None:
        names = ("actions", "episode_starts", "written", "rewards", "values", "log_probs")
        last["arrays"] = {n: getattr(buffer, n).copy() for n in (*names, "ref_log_probs")}
        last["paid"] = paid
        sum_up(buffer, paid, dones)

    algorithm._sum_up = note
    callback = CallbackList([])
    callback.init_callback(algorithm)
    assert algorithm.collect_rollouts(algorithm.env, callback, buffer, algorithm.n_steps)
    return {**last, "begun": buffer._begun, "texts": len(buffer.segments)}


def take_over(algorithm: Any, rollout: dict[str, Any], rows: slice) -> None:
    """Have written some rows of a rollout."""
    buffer = algorithm.rollout_buffer
    buffer.reset()
    for name, array in rollout["arrays"].items():
        setattr(buffer, name, array[:, rows].copy())
    for name in ("advantages", "returns"):
        setattr(buffer, name, np.zeros_like(buffer.rewards))
    buffer._begun, buffer.pos, buffer.full = rollout["begun"][rows], len(buffer.rewards), True
    ends = [each[rows] for each in rollout["ends"]]
    algorithm._sum_up(buffer, rollout["paid"][:, rows], ends[1])
    algorithm._estimate_advantages(*ends)


def learned(algorithm: Any) -> dict[str, Any]:
    """Learn from the rollout; the weights and what is logged."""
    before = flat(algorithm)
    algorithm.learner.begin(algorithm.policy.optimizer, algorithm.reference)
    algorithm.train()
    logged = {n: float(v) for n, v in algorithm.logger.name_to_value.items() if "time/" not in n}
    gradient_norm = float((flat(algorithm) - before).norm())
    return {"before": before, "after": flat(algorithm), "moved": gradient_norm, "logged": logged}


def flat(algorithm: Any) -> torch.Tensor:
    """All weights that are trained, in one."""
    weights = whole(trained_weights(algorithm.policy)).values()
    return torch.cat([weight.reshape(-1) for weight in weights]).clone()


def compare(process: int, count: int, directory: Path, of_one: dict[str, Any]) -> None:
    """Learn as one of so many processes, and write down how far from the one the result is."""
    found = {}
    for variant, (rollout, expected) in of_one.items():
        algorithm = make_algorithm(variant, process, count)
        rows = ROWS // count
        take_over(algorithm, rollout, slice(process * rows, process * rows + rows))
        got = learned(algorithm)
        found[variant] = {
            "same_start": torch.equal(got["before"], expected["before"]),
            "moved": expected["moved"],
            "difference": float((got["after"] - expected["after"]).norm()),
            "largest": float((got["after"] - expected["after"]).abs().max()),
            "logged": {n: [v, got["logged"].get(n)] for n, v in expected["logged"].items()},
            "tokens": int(algorithm.rollout_buffer.written.sum()),
        }
    (directory / f"{count}-{process}.json").write_text(json.dumps(found))


def main(directory: Path) -> None:
    """Learn alone, then by two and by four."""
    torch.set_num_threads(1)
    of_one = {}
    for variant in VARIANTS:
        algorithm = make_algorithm(variant)
        rollout = collect(algorithm)
        of_one[variant] = rollout, learned(algorithm)
    for count in (2, 4):
        fork(count, lambda process, count=count: compare(process, count, directory, of_one))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
