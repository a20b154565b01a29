"""Which reward teaches what, and how much does immediate reward beat delayed?

    python benchmarks/compare_rewards.py                           # all of it: 1.5 hours on 2 cores
    python benchmarks/compare_rewards.py --only sentiment grammar  # some rewards
    python benchmarks/compare_rewards.py --quick                   # a few minutes, for a look
    python benchmarks/compare_rewards.py --pilot                   # which lambda suits which timing
    python benchmarks/compare_rewards.py --same-lambda             # is it the timing or lambda?
    python benchmarks/compare_rewards.py --report                  # tables and pictures again
    python benchmarks/compare_rewards.py --ray                     # on a Ray of this machine
    python benchmarks/compare_rewards.py --ray HOST:6379           # on a cluster

The built-in model is trained with every reward, paid at every token or all at the end, with the
same task, budget, settings and seeds; all rewards then judge what each of the models writes on
held-out prompts. Written are `benchmarks/results/compare_rewards.csv` (runs), `_curves.csv`,
`_scales.csv`, `_base.csv` (the base model), `.md` and pictures. A comparison that was stopped goes
on where it was, also inside its runs, which then end as if they had never been cut: until they are
done they have checkpoints under `runs/`, or in the directory of --output. Two comparisons at a time
would overwrite what the other has measured.

With --ray, runs are jobs of one CPU each, on all machines of a cluster, and --gpus gives each a
share of a GPU. This repository has to be installed on them ("pip install '.[all]'"); the code of
the comparison is sent there. A run whose worker dies is tried again, twice at most: from its last
checkpoint, where machines share the directory of checkpoints, and from the beginning otherwise.
Results are written here, as they come.

What makes it fair:

- gamma is 1 and the budget is part of the task, so that both timings have the same objective.
- Rewards are weighted so that they spread alike before training (`comparison/scales.py`), with the
  same weight for both timings.
- Delayed has the lambda that a pilot with another seed found best for it: what is paid at the end
  has to be credited from afar, and the default of `textgym train` would hold it back. Immediate
  has that default.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # of each process, before torch counts the cores
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import BrokenExecutor, Executor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rich
from comparison import base, plots, report, rewards, scales, tasks
from comparison.analysis import results
from comparison.pilot import pilot
from comparison.pool import carry_out, clock, executor, say
from comparison.rows import Row
from comparison.run import TIMINGS, Run, train
from comparison.store import Store
from speed.results import machine

from agents.config import RunConfig
from textgym.extras import MissingExtra, require
from textgym.files import atomic_write

RESULTS = Path(__file__).parent / "results"
QUICK_RESULTS = Path("runs", "compare_rewards_quick")
NAME = "compare_rewards"
LOCAL = "local"

GAE_LAMBDA = {"immediate": 0.9, "delayed": 1.0}
"""After --pilot. Delayed has the best of those that were tried. Immediate has the default of
`textgym train`: the best by the mean of each gain divided by the reward's best, but below 0.6 by
the mean of gains in standard deviations, in which `keywords` counts most. If anything, that works
against immediate."""

SAME_LAMBDA = ("sentiment", "keywords", "regex", "rouge", "length")
"""What --same-lambda pays immediately at delayed's lambda."""

PILOT_LAMBDAS = (0.6, 0.8, 0.9, 0.95, 1.0)
PILOT_SEEDS = (1000,)
QUICK_TOKENS, QUICK_SEEDS = 8_192, 2


def main() -> None:
    """Measure what is missing, then write tables and pictures of all there is."""
    arguments = parsed()
    began = time.perf_counter()
    names = arguments.only or default_names(arguments)
    store = Store(arguments.output / f"{NAME}.csv")
    pilot_store = Store(arguments.output / f"{NAME}_pilot.csv")
    failures: list[str] = []
    if not arguments.report:
        with ExitStack() as stack:
            try:
                pool = stack.enter_context(pool_of(arguments))
            except (MissingExtra, OSError, ValueError) as error:
                print(f"{Path(__file__).name}: error: {error}", file=sys.stderr)
                sys.exit(2)
            if arguments.pilot:
                runs = pilot_runs(pilot_store, pool, arguments.tokens)
                failures = measure(runs, pilot_store, pool, arguments)
            else:
                runs = all_runs(store, pool, names, arguments)
                failures = measure(runs, store, pool, arguments)
    if arguments.pilot:
        table = "\n".join(pilot(pilot_store, store))
        atomic_write(pilot_store.path.with_suffix(".md"), table.removeprefix("#"))
        print(table)
    else:
        write(store, pilot_store, arguments)
    rich.print(f"{clock(time.perf_counter() - began)} in all")
    if failures:
        sys.exit("failed, and to be tried again by the same command:\n" + "\n".join(failures))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = list(rewards.REWARDS)
    parser.add_argument("--only", nargs="+", choices=known, metavar="REWARD", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help=f"few and short, in {QUICK_RESULTS}")
    parser.add_argument("--pilot", action="store_true", help="try lambdas instead")
    parser.add_argument(
        "--same-lambda", action="store_true", help="immediate at delayed's lambda, for a few"
    )
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--seeds", type=int, help="runs of each kind, at least 2 (default: 3)")
    parser.add_argument("--tokens", type=int, help="of a run (default: those of textgym train)")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes, or CPUs of a local Ray (default: 2)"
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="run on a Ray: that of a cluster, such as host:6379, ray://host:10001 or auto (which "
        "runs here already), or one that is started here",
    )
    parser.add_argument(
        "--gpus", type=float, default=0.0, help="GPUs of a run, such as 0.25; with --ray"
    )
    parser.add_argument("--output", type=Path, help="directory of the results")
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.tokens = arguments.tokens or (QUICK_TOKENS if quick else RunConfig().total_timesteps)
    arguments.seeds = arguments.seeds or (QUICK_SEEDS if quick else 3)
    arguments.output = arguments.output or (QUICK_RESULTS if quick else RESULTS)
    if arguments.seeds < 2:
        parser.error(f"--seeds {arguments.seeds}: intervals need at least 2 seeds")
    rollout = RunConfig().n_envs * RunConfig().n_steps
    if arguments.tokens < 2 * rollout:
        parser.error(f"--tokens {arguments.tokens}: a curve needs 2 rollouts, of {rollout:,} each")
    if arguments.gpus and arguments.ray is None:
        parser.error(f"--gpus {arguments.gpus:g}: only Ray shares out GPUs, so give --ray, too")
    return arguments


def pool_of(arguments: argparse.Namespace) -> AbstractContextManager[Executor]:
    """Who carries out the runs."""
    if arguments.ray is None:
        return executor(arguments.workers)
    import agents.ray_cluster  # noqa: F401  # before Ray, which it makes quiet

    require("ray", extra="ray", wanted_by="--ray")
    from comparison.ray_pool import ray_executor

    address = None if arguments.ray == LOCAL else arguments.ray
    return ray_executor(address, arguments.workers, arguments.gpus)


def default_names(arguments: argparse.Namespace) -> Sequence[str]:
    """The rewards if --only does not say which."""
    if arguments.quick:
        return rewards.QUICK
    return SAME_LAMBDA if arguments.same_lambda else list(rewards.REWARDS)


def all_runs(
    store: Store, pool: Executor, names: Sequence[str], arguments: argparse.Namespace
) -> list[Run]:
    """Every reward with both timings and all seeds; whole seeds first, so that a part is of use.

    With --same-lambda only immediate, at delayed's lambda.
    """
    judges = names if arguments.quick else list(rewards.REWARDS)
    scale(store, pool, judges)
    arms = {"immediate": GAE_LAMBDA["delayed"]} if arguments.same_lambda else GAE_LAMBDA
    return [
        planned(store, name, timing, gae_lambda, seed, arguments.tokens, judges)
        for seed in range(arguments.seeds)
        for name in names
        for timing, gae_lambda in arms.items()
    ]


def pilot_runs(store: Store, pool: Executor, tokens: int) -> list[Run]:
    """Few rewards with every lambda, on seeds that are not used afterwards."""
    scale(store, pool, rewards.PILOT)
    return [
        planned(store, name, timing, gae_lambda, seed, tokens, rewards.PILOT)
        for seed in PILOT_SEEDS
        for name in rewards.PILOT
        for gae_lambda in PILOT_LAMBDAS
        for timing in TIMINGS
    ]


def planned(
    store: Store,
    name: str,
    timing: str,
    gae_lambda: float,
    seed: int,
    tokens: int,
    judges: Iterable[str],
) -> Run:
    """One run; its judges are those of its own task."""
    of_task = set(rewards.of_task(rewards.REWARDS[name].task))
    return Run(
        reward=name,
        timing=timing,
        seed=seed,
        weight=store.scales[name]["weight"],
        gae_lambda=gae_lambda,
        total_timesteps=tokens,
        judges=tuple(judge for judge in judges if judge in of_task),
    )


def scale(store: Store, pool: Executor, names: Iterable[str]) -> None:
    """Measure the scales that are not known yet."""
    missing = [name for name in names if name not in store.scales]
    if missing:
        rich.print(f"measuring the scale of {len(missing)} rewards on texts of the base model")
        try:
            measured = pool.submit(scales.measure, missing).result()
        except BrokenExecutor as error:
            sys.exit(f"failed, and to be tried again by the same command: {error}")
        store.add_scales(measured)


def measure(
    runs: Sequence[Run], store: Store, pool: Executor, arguments: argparse.Namespace
) -> list[str]:
    """Carry out the runs that the store does not have yet, and return what went wrong."""
    missing = [run for run in runs if not store.has(run)]
    if len(missing) < len(runs):
        say(f"{len(runs) - len(missing)} of {len(runs)} runs are there already")

    def keep(run: Run, result: tuple[Row, list[Row]]) -> str:
        row, curve = result
        store.add(row, curve)
        before, after = row[f"before: {run.reward}"], row[f"after: {run.reward}"]
        return f"{before:.3f} → [bold]{after:.3f}[/], KL {row['kl']:.1f}, {row['seconds']:.0f} s"

    ours = arguments.output.resolve() == RESULTS.resolve()
    lasting = Path("runs", NAME) if ours else arguments.output
    work = partial(
        train,
        checkpoints=lasting.absolute() / "checkpoints",
        device="cuda" if arguments.gpus else "cpu",
    )
    return carry_out(missing, work, keep, pool)


def write(store: Store, pilot_store: Store, arguments: argparse.Namespace) -> None:
    """Tables and pictures of the runs with these settings."""
    base.complete(store, store.scales)
    other_store = Store(store.path)
    store.only(arguments.tokens, arguments.seeds, GAE_LAMBDA)
    other_store.only(
        arguments.tokens, arguments.seeds, dict.fromkeys(TIMINGS, GAE_LAMBDA["delayed"])
    )
    found = results(store, np.random.default_rng(0))
    text = report.report(
        store=store,
        found=found,
        other=(other_store, results(other_store, np.random.default_rng(0))),
        settings=described(arguments),
        lambdas=GAE_LAMBDA,
        machine=machine("cpu", "float32") | carried_out(arguments),
        pilot_store=pilot_store,
        stem=NAME,
        generator=np.random.default_rng(1),
    )
    path = arguments.output / NAME
    if found:
        plots.learning_curves(found, Path(f"{path}_curves.png"))
        plots.token_ratios(found, np.random.default_rng(1), Path(f"{path}_ratios.png"))
        plots.score_against_kl(store, found, Path(f"{path}_kl.png"))
        for timing in TIMINGS:
            plots.judged(store, timing, Path(f"{path}_judged_{timing}.png"))
    atomic_write(f"{path}.md", text.rstrip() + "\n")
    print(text)


def carried_out(arguments: argparse.Namespace) -> dict[str, str]:
    """Who carried out the runs: of a cluster, the machine that asks says nothing."""
    if arguments.ray in (None, LOCAL):
        return {"threads of torch": f"1 in each of {arguments.workers}"}
    device = {"device": f"{arguments.gpus:g} GPUs a run"} if arguments.gpus else {}
    return {**device, "threads of torch": f"1 in each of the workers of {arguments.ray}"}


def described(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of all runs, as a reader wants them."""
    config = RunConfig()
    settings = {**vars(config), **config.algorithm_kwargs()}
    shown = ("n_envs", "n_steps", "batch_size", "n_epochs", "learning_rate", "gamma")
    return {
        "model": config.model,
        "algorithm": "TokenPPO",
        "tokens of a run": f"{arguments.tokens:,}",
        "seeds": arguments.seeds,
        **{name: settings[name] for name in shown},
        **{f"gae_lambda ({timing})": lam for timing, lam in GAE_LAMBDA.items()},
        "kl_coef": settings["kl_coef"],
        **{f"tokens of a text ({task})": new for task, new in tasks.BUDGETS.items()},
        "held-out texts": tasks.HELD_OUT_TEXTS,
    }


if __name__ == "__main__":
    main()
