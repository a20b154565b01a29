"""Where the time of `TokenPPO` goes, with what `textgym train` takes for its defaults.

Two things are measured, apart from each other: by timers around functions, which part of the
program waits for what; and by torch's profiler, how long the matrix products take that a
transformer is made of (the profiler slows everything down, but not what happens inside of them).
The backward pass is divided by when the gradients of logits and of hidden states are done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecMonitor
from torch.profiler import ProfilerActivity, profile

from agents import TransformerPolicy, make_sb3_vec_env, scoring
from agents.backbone import Backbone
from agents.config import RunConfig
from agents.reference import Reference
from agents.sampler import Sampler
from speed.learners import Learner
from speed.results import Figures, Section, Target
from speed.stopwatch import Phases, Stopwatch, replaced
from textgym.rewards.combine import WeightedSum

DECODE, PREFILL = "rollout: transformer, one token a row", "rollout: transformer, prompts"
FORWARD, BACKWARD = "update: layers, forward", "update: layers, backward"
HEAD_FORWARD, HEAD_BACKWARD = "update: head, forward", "update: head, backward"
REWARD = "rollout: reward"
LOG_PROBS = "update: log-probabilities and entropy"
LOSS_BACKWARD = "update: losses, log-probabilities and entropy, backward"
REFERENCE = "rollout: reference model, for the KL penalty"
TRANSFORMER = {DECODE, PREFILL, REFERENCE, FORWARD, BACKWARD, HEAD_FORWARD, HEAD_BACKWARD}

Function = Callable[..., Any]

MATRIX_PRODUCTS = {
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
}


def measure(rows: int, iterations: int, at_most: float) -> Section:
    """Divide the time of some iterations of the built-in model on the default task and reward.

    Args:
        rows: Texts written side by side.
        iterations: Of which times are added up.
        at_most: Percent of the time that may go elsewhere than into the transformer.
    """
    config = RunConfig(n_envs=rows, device="cpu")
    learner = _learner(config)
    learner.run(3)
    stopwatch = _watch(learner, iterations)
    products, whole = _products_and_all(learner, iterations)
    total = sum(whole.values())

    timed = sum(stopwatch.seconds.values())
    body = [
        [label, f"{1e3 * seconds / iterations:.1f}", f"{100 * seconds / timed:.1f}"]
        for label, seconds in sorted(stopwatch.seconds.items())
    ]
    parts = Figures("Where the time goes", ["part", "ms an iteration", "%"], body)
    body = [
        [
            phase,
            f"{1e3 * whole[phase] / iterations:.1f}",
            f"{1e3 * products[phase] / iterations:.1f}",
            f"{100 * products[phase] / whole[phase]:.1f}",
        ]
        for phase in whole
    ]
    header = ["phase", "ms an iteration", "of it matrix products, ms", "%"]
    matrices = Figures("Matrix products and attention, by torch's profiler", header, body)

    inside = sum(stopwatch.seconds[label] for label in TRANSFORMER)
    elsewhere = {
        "percent of the time that is not the transformer's": 100 * (1 - inside / timed),
        "percent of the time that is not in matrix products": 100
        * (1 - sum(products.values()) / total),
    }
    case = f"built-in model, {rows} rows"
    targets = [
        Target(against, case, percent, at_most, upper=True)
        for against, percent in elsewhere.items()
    ]
    tokens = iterations * learner.tokens
    spent = {
        "rollout without reward": whole["rollout"] / total - stopwatch.seconds[REWARD] / timed,
        "reward": stopwatch.seconds[REWARD] / timed,
        "update": whole["update"] / total,
    }
    notes = [
        "; ".join(f"{what} {100 * share:.1f}%" for what, share in spent.items()) + " of the time.",
        f"As `textgym train`: {config.n_steps} tokens a row and rollout, {config.n_epochs} epochs "
        f"of mini-batches of {config.batch_size}; {tokens / total:,.0f} tokens/s end to end.",
        f"With timers an iteration took {timed / total:.2f} times as long as without.",
        "The transformer's time is that of its layers and its head, in whatever way; the time in "
        "matrix products leaves out its norms, activations, masks, copies, and Python.",
    ]
    return Section(targets, [parts, matrices], notes)


def _learner(config: RunConfig) -> Learner:
    from agents import TokenPPO

    env = make_sb3_vec_env("TextGen-v0", config.n_envs, env_kwargs=config.env_kwargs())
    return Learner(TokenPPO(TransformerPolicy, env, **config.algorithm_kwargs()))


def _watch(learner: Learner, iterations: int) -> Stopwatch:
    """Time the parts of some iterations."""
    watch = Stopwatch()

    def logits(*args: Any, **kwargs: Any) -> Any:
        result = original_logits(*args, **kwargs)
        result.register_hook(lambda _: watch.switch(HEAD_BACKWARD))
        return result

    def log_probs(to_logits: Any, hidden: Any, *args: Any) -> Any:
        hidden.register_hook(lambda _: watch.switch(BACKWARD))
        return original_log_probs(to_logits, hidden, *args)

    def in_update(label: str, function: Function, watched: Function) -> Function:
        timed = watch.timed(label, watched)
        return lambda *args, **kwargs: (timed if torch.is_grad_enabled() else function)(
            *args, **kwargs
        )

    original_hidden, original_logits = Backbone.hidden_states, Backbone.logits
    original_log_probs = scoring.log_probs_and_entropy
    optimizer: Any = type(learner.algorithm.policy.optimizer)
    labels: dict[tuple[Any, str], str] = {
        (Sampler, "begin"): PREFILL,
        (Sampler, "append"): DECODE,
        (Sampler, "sample"): "rollout: drawing",
        (VecMonitor, "step_async"): "rollout: environment",
        (VecMonitor, "step_wait"): "rollout: environment",
        (WeightedSum, "step"): REWARD,
        (Reference, "log_probs"): REFERENCE,
        (torch.Tensor, "backward"): LOSS_BACKWARD,
        (torch.nn.utils, "clip_grad_norm_"): "update: optimizer",
        (optimizer, "step"): "update: optimizer",
        (optimizer, "zero_grad"): "update: optimizer",
    }
    functions = {
        (owner, name): watch.timed(label, getattr(owner, name))
        for (owner, name), label in labels.items()
    }
    functions[Backbone, "hidden_states"] = in_update(FORWARD, original_hidden, original_hidden)
    functions[Backbone, "logits"] = in_update(HEAD_FORWARD, original_logits, logits)
    functions[scoring, "log_probs_and_entropy"] = in_update(
        LOG_PROBS, original_log_probs, log_probs
    )
    phases = Phases(lambda phase: watch.switch(f"{phase}: rest"))
    with replaced(functions), watch.span(""):
        learner.learn(iterations, phases)
    # What is neither in a rollout nor in an update is before the first and behind the last.
    for label in ("", ": rest"):
        watch.seconds.pop(label, None)
    return watch


def _products_and_all(
    learner: Learner, iterations: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of matrix products by phase, and of all; each from every other iteration."""
    products, whole = {"rollout": 0.0, "update": 0.0}, {"rollout": 0.0, "update": 0.0}
    for _ in range(iterations):
        (iteration,) = learner.run(1)
        whole["rollout"] += iteration.rollout
        whole["update"] += iteration.update
        for phase, seconds in _matrix_products(learner).items():
            products[phase] += seconds
    return products, whole


def _matrix_products(learner: Learner) -> dict[str, float]:
    """Seconds of matrix products and attention in a rollout and in an update."""
    profilers: dict[str, profile] = {}

    def begins(phase: str) -> None:
        for profiler in list(profilers.values())[-1:]:
            profiler.stop()
        if phase:
            profilers[phase] = profile(activities=[ProfilerActivity.CPU])
            profilers[phase].start()

    learner.learn(1, Phases(begins))
    return {
        phase: sum(
            event.self_cpu_time_total / 1e6
            for event in profiler.key_averages()
            if event.key in MATRIX_PRODUCTS
        )
        for phase, profiler in profilers.items()
    }
