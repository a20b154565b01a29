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
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.vec_env import VecMonitor
from torch.profiler import ProfilerActivity, profile

from agents import TransformerPolicy, make_sb3_vec_env, scoring
from agents.algorithms.base import TokenOnPolicyAlgorithm
from agents.backbone import Backbone, DType
from agents.config import RunConfig
from agents.reader import CachedReader
from agents.sampler import Sampler
from speed.learners import Learner, PhaseTimer
from speed.results import Figures, Section, Target
from speed.stopwatch import Phases, Stopwatch, now, replaced
from textgym.rewards.combine import WeightedSum

DECODE = "rollout: transformer, passes where rows only go on"
PREFILL = "rollout: transformer, passes that hold prompts as well"
READING = "rollout: reading, beside the transformer"
SCORING = "rollout: transformer, scoring what was written again"
FORWARD, BACKWARD = "update: layers, forward", "update: layers, backward"
HEAD_FORWARD, HEAD_BACKWARD = "update: head, forward", "update: head, backward"
REWARD = "rollout: reward"
LOG_PROBS = "update: log-probabilities and entropy"
LOSS_BACKWARD = "update: losses, log-probabilities and entropy, backward"
SCORING_REST = "rollout: scoring again, log-probabilities and rest"
TRANSFORMER = {DECODE, PREFILL, SCORING, FORWARD, BACKWARD, HEAD_FORWARD, HEAD_BACKWARD}
TOLERANCE = 1.01
"""By how much parts may exceed the whole: clocks are read one after another."""

Function = Callable[..., Any]

MATRIX_PRODUCTS = {
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    "aten::_flash_attention_forward",
    "aten::_flash_attention_backward",
    "aten::_efficient_attention_forward",
    "aten::_efficient_attention_backward",
    "aten::_cudnn_attention_forward",
    "aten::_cudnn_attention_backward",
}


def measure(
    rows: int, iterations: int, at_most: float, device: str = "cpu", dtype: DType = "float32"
) -> Section:
    """Divide the time of some iterations of the built-in model on the default task and reward.

    Args:
        rows: Texts written side by side.
        iterations: Of which times are added up.
        at_most: Percent of the time that may go elsewhere than into the transformer.
        device: Where the model is.
        dtype: What its layers compute in.

    Raises:
        RuntimeError: If parts take longer than what they are parts of, or the transformer does
            not show where it is looked for.
    """
    config = RunConfig(n_envs=rows, device=device, dtype=dtype)
    learner = _learner(config)
    learner.run(3)
    stopwatch, phases = _watch(learner, iterations)
    _check_parts(stopwatch.seconds, phases)
    products, whole = _products_and_all(learner, iterations)
    total = sum(whole.values())
    for phase, seconds in products.items():
        if seconds > whole[phase]:
            raise RuntimeError(
                f"{seconds:.3f} s of matrix products in {whole[phase]:.3f} s of {phase}s."
            )

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
        "percent of the time outside of the transformer's layers and head": 100
        * (1 - inside / timed),
        "percent of the time outside of matrix products and attention": 100
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
        "Two readings of what is not the transformer's own work. The first counts all that its "
        "layers and head do as its own: norms, activations, masks, copies, its Python. The second "
        "counts matrix products and attention only, which is what the target asks for.",
        "On a GPU the timers wait for it wherever a part ends, so that nothing overlaps there; "
        "seconds of matrix products are those of the GPU's kernels.",
    ]
    return Section(targets, [parts, matrices], notes)


def _learner(config: RunConfig) -> Learner:
    from agents import TokenPPO

    env = make_sb3_vec_env("TextGen-v0", config.n_envs, env_kwargs=config.env_kwargs())
    return Learner(TokenPPO(TransformerPolicy, env, **config.algorithm_kwargs()))


def _check_parts(seconds: dict[str, float], phases: PhaseTimer) -> None:
    """Raise unless parts fit into what they are parts of, and the transformer is among them."""
    for phase, whole in (("rollout", sum(phases.rollouts)), ("update", sum(phases.updates))):
        timed = sum(part for label, part in seconds.items() if label.startswith(phase))
        if not whole / TOLERANCE <= timed <= whole * TOLERANCE:
            raise RuntimeError(f"the parts of {phase}s take {timed:.3f} s, all of it {whole:.3f}.")
    for label in TRANSFORMER - {SCORING}:
        if not seconds.get(label):
            raise RuntimeError(
                f"no time was charged to {label!r}. The work is done elsewhere now: see where "
                "agents/ does it, and put the timer there."
            )


def _watch(learner: Learner, iterations: int) -> tuple[Stopwatch, PhaseTimer]:
    """Time the parts of some iterations, and all of them."""
    watch, timer = Stopwatch(learner.algorithm.device), PhaseTimer()
    label_of_pass = ""

    def logits(*args: Any, **kwargs: Any) -> Any:
        result = original_logits(*args, **kwargs)
        result.register_hook(lambda _: watch.switch(HEAD_BACKWARD))
        return result

    def log_probs(to_logits: Any, hidden: Any, *args: Any) -> Any:
        hidden.register_hook(lambda _: watch.switch(BACKWARD))
        return original_log_probs(to_logits, hidden, *args)

    def read(reader: Any, going_on: Any, beginning: Any) -> None:
        nonlocal label_of_pass
        label_of_pass = PREFILL if len(beginning) else DECODE
        with watch.span(READING):
            original_read(reader, going_on, beginning)

    def model_reads(*args: Any, **kwargs: Any) -> Any:
        with watch.span(label_of_pass):
            return original_model_reads(*args, **kwargs)

    def scored(in_update: str, before: str, function: Function, watched: Function) -> Function:
        """Another function with gradients, and no timer of its own where the reader reads."""
        timed, timed_before = watch.timed(in_update, watched), watch.timed(before, function)

        def call(*args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled():
                return timed(*args, **kwargs)
            return (function if torch.is_inference_mode_enabled() else timed_before)(
                *args, **kwargs
            )

        return call

    original_read, original_model_reads = CachedReader._read, Backbone.read
    original_hidden, original_logits = Backbone.hidden_states, Backbone.logits
    original_log_probs = scoring.log_probs_and_entropy
    optimizer: Any = type(learner.algorithm.policy.optimizer)
    labels: dict[tuple[Any, str], str] = {
        (Sampler, "sample"): "rollout: drawing",
        (VecMonitor, "step_async"): "rollout: environment",
        (VecMonitor, "step_wait"): "rollout: environment",
        (WeightedSum, "step"): REWARD,
        (TokenOnPolicyAlgorithm, "_score_again"): SCORING_REST,
        (torch.Tensor, "backward"): LOSS_BACKWARD,
        (torch.nn.utils, "clip_grad_norm_"): "update: optimizer",
        (optimizer, "step"): "update: optimizer",
        (optimizer, "zero_grad"): "update: optimizer",
    }
    functions = {
        (owner, name): watch.timed(label, getattr(owner, name))
        for (owner, name), label in labels.items()
    }
    functions[CachedReader, "_read"] = read
    functions[Backbone, "read"] = model_reads
    functions[Backbone, "hidden_states"] = scored(
        FORWARD, SCORING, original_hidden, original_hidden
    )
    functions[Backbone, "logits"] = scored(HEAD_FORWARD, SCORING, original_logits, logits)
    functions[scoring, "log_probs_and_entropy"] = scored(
        LOG_PROBS, SCORING_REST, original_log_probs, log_probs
    )
    phases = Phases(lambda phase: watch.switch(f"{phase}: rest"))
    with replaced(functions), watch.span(""):
        learner.learn(iterations, CallbackList([timer, phases]))
    # What is neither in a rollout nor in an update is before the first and behind the last.
    for label in ("", ": rest"):
        watch.seconds.pop(label, None)
    return watch, timer


def _products_and_all(
    learner: Learner, iterations: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of matrix products by phase, and of all.

    Every third iteration is followed by one that is profiled, which takes far longer: its seconds
    of matrix products stand for those of the others.
    """
    products, whole = {"rollout": 0.0, "update": 0.0}, {"rollout": 0.0, "update": 0.0}
    profiled = range(0, iterations, 3)
    for number in range(iterations):
        (iteration,) = learner.run(1)
        whole["rollout"] += iteration.rollout
        whole["update"] += iteration.update
        if number in profiled:
            for phase, seconds in _matrix_products(learner).items():
                products[phase] += seconds * iterations / len(profiled)
    return products, whole


def _matrix_products(learner: Learner) -> dict[str, float]:
    """Seconds of matrix products and attention in a rollout and in an update."""
    profilers: dict[str, profile] = {}
    on_gpu = learner.algorithm.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]

    def begins(phase: str) -> None:
        now(learner.algorithm.device)
        for profiler in list(profilers.values())[-1:]:
            profiler.stop()
        if phase:
            profilers[phase] = profile(activities=activities)
            profilers[phase].start()

    learner.learn(1, Phases(begins))
    return {
        phase: sum(
            (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
            for event in profiler.key_averages()
            if event.key in MATRIX_PRODUCTS
        )
        for phase, profiler in profilers.items()
    }
