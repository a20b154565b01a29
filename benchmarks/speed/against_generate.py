"""Bare `model.generate` against the whole rollout of `TokenPPO`.

The one draws tokens and does nothing else; the other steps the environment, pays rewards, and
knows value and log-probability of every token. Only useful tokens count: `generate` goes on with
padding until its longest text is done.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import cycle, islice
from statistics import median
from typing import Any

import torch
from torch import Tensor

from speed.learners import fast
from speed.results import Figures, Section, Target
from speed.stopwatch import now
from speed.workload import EOS_ID, PAD_ID, Workload


def measure(cases: dict[Workload, tuple[float, float]], rounds: int, iterations: int) -> Section:
    """Compare on each workload, with the ratio wanted and the one worth aiming for.

    Args:
        cases: Workloads and targets.
        rounds: How often each side is measured, in turn.
        iterations: How many calls or rollouts a round has.
    """
    section = Section()
    body = []
    for workload, (at_least, aim) in cases.items():
        arguments = {"n_steps": workload.new, "batch_size": workload.rows * workload.new}
        ours = fast(workload, **arguments, n_epochs=1)
        model = workload.model().to(workload.device)
        prompts = prompt_ids(workload).to(workload.device)
        ours.run(2)
        generate(workload, model, prompts)
        speeds: dict[str, list[float]] = {"generate": [], "TokenPPO": []}
        for _ in range(rounds):
            for _ in range(iterations):
                tokens, seconds = generate(workload, model, prompts)
                speeds["generate"].append(tokens / seconds)
            speeds["TokenPPO"] += [i.tokens / i.rollout for i in ours.run(iterations)]
        theirs, mine = (median(values) for values in speeds.values())
        body.append([str(workload), f"{theirs:,.0f}", f"{mine:,.0f}", f"{mine / theirs:.2f}"])
        detail = f"{mine:,.0f} against {theirs:,.0f} useful tokens a second"
        against = "bare model.generate, against the whole rollout"
        section.targets.append(
            Target(against, str(workload), mine / theirs, at_least, aim, detail=detail)
        )
    header = ["workload", "generate, tokens/s", "rollout, tokens/s", "times"]
    section.figures.append(Figures("Bare generate against the whole rollout", header, body))
    section.notes.append(f"Medians of {rounds} x {iterations} calls and rollouts, in turn.")
    return section


def prompt_ids(workload: Workload) -> Tensor:
    """Prompts, int64 (rows, prompt)."""
    texts = islice(cycle(workload.prompts), workload.rows)
    return torch.tensor([workload.tokenizer.encode(text) for text in texts])


def generate(workload: Workload, model: Any, prompts: Tensor) -> tuple[int, float]:
    """Useful tokens, the end of a text included, and the seconds that they took."""
    rounded = torch.autocast(torch.device(workload.device).type, torch.bfloat16)
    start = now(workload.device)
    with rounded if workload.dtype == "bfloat16" else nullcontext():
        written = model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            max_new_tokens=workload.new,
            eos_token_id=EOS_ID,
            pad_token_id=PAD_ID,
        )
    seconds = now(workload.device) - start
    ends = (written[:, workload.prompt :] == EOS_ID).int()
    after_the_end = ends.cumsum(dim=1) - ends
    return int((after_the_end == 0).sum()), seconds
