"""The command line: one function a command."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

import textgym
from agents.distributed.launcher import launched
from agents.distributed.speaking import after_the_first, let_the_first_speak
from agents.interrupts import Stopped
from textgym import models, rewards, tasks
from textgym.extras import MissingExtra, require
from textgym.registry import did_you_mean
from textgym.shell import pip_install, program

# Each command imports what it needs: `textgym list` does not wait for torch.


def train(arguments: list[str]) -> None:
    """Train a language model with a reward at every token."""
    from agents.config import RunConfig
    from agents.devices import known_device
    from agents.distributed.processes import join, leave
    from agents.run_directory import RunDirectory
    from agents.run_options import run_options
    from agents.train import train as run

    with after_the_first():
        config, resumed = run_options(RunConfig, "train", arguments, RunDirectory.check_resumable)
        known_device(config.device)
        join(config.device)
    run(config, resume=resumed)
    leave()


def tune(arguments: list[str]) -> None:
    """Search among the settings of train for those that learn best, here or on a cluster."""
    import agents.tuning  # noqa: F401  # before Ray, which it makes quiet

    for module in ("ray", "optuna"):
        require(module, extra="ray", wanted_by="a sweep")
    from agents.run_options import given_options, run_options
    from agents.tuning.config import TuneConfig
    from agents.tuning.sweep import check_resumable
    from agents.tuning.sweep import tune as run

    config, resumed = run_options(
        TuneConfig, "tune", arguments, check_resumable, titles=("sweep", "trial")
    )
    config.check_not_given(given_options(arguments))
    run(config, resume=resumed)
    # Python takes seconds to end with all that Ray has left: Ctrl-C cuts nothing then.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def sft(arguments: list[str]) -> None:
    """Train a language model to write the references of a task, or a corpus."""
    from agents.run_options import run_options
    from agents.supervised.config import SFTConfig
    from agents.supervised.sft import check_resumable
    from agents.supervised.sft import sft as run

    config, resumed = run_options(SFTConfig, "sft", arguments, check_resumable)
    run(config, resume=resumed)


def run(arguments: list[str]) -> None:
    """Run the stages that a file lists: pretrain, sft, train."""
    import tyro

    from agents.pipeline import PipelineConfig, run_pipeline

    run_pipeline(tyro.cli(PipelineConfig, prog=f"{program()} run", args=arguments))


def sample(arguments: list[str]) -> None:
    """Let a model write, every token coloured by its reward."""
    import tyro

    from agents.sample import SampleConfig
    from agents.sample import sample as run

    run(tyro.cli(SampleConfig, prog=f"{program()} sample", args=arguments))


def score(arguments: list[str]) -> None:
    """Score the texts of a file, every token coloured by what it earns."""
    import tyro

    from agents.score import ScoreConfig
    from agents.score import score as run

    run(tyro.cli(ScoreConfig, prog=f"{program()} score", args=arguments))


def train_reward(arguments: list[str]) -> None:
    """Train a reward model on a file of preferences."""
    import tyro

    from agents.reward_training import RewardTrainingConfig
    from agents.reward_training import train_reward as run

    run(tyro.cli(RewardTrainingConfig, prog=f"{program()} train-reward", args=arguments))


def rate(arguments: list[str]) -> None:
    """Serve a page on which people rate texts while a model trains."""
    import tyro

    from textgym.ratings import serve

    tyro.cli(serve, prog=f"{program()} rate", args=arguments)


def serve(arguments: list[str]) -> None:
    """Score texts for training runs on other machines."""
    import tyro

    from agents.serve import ServeConfig
    from agents.serve import serve as run

    run(tyro.cli(ServeConfig, prog=f"{program()} serve", args=arguments))


def pretrain(arguments: list[str]) -> None:
    """Train a tokenizer and a small language model from scratch on your texts."""
    import tyro

    from agents.pretraining import PretrainConfig
    from agents.pretraining import pretrain as run

    run(tyro.cli(PretrainConfig, prog=f"{program()} pretrain", args=arguments))


def evaluate(arguments: list[str]) -> None:
    """Judge models on held-out prompts, side by side."""
    import tyro

    from agents.judging.config import EvalConfig
    from agents.judging.judge import evaluate_models

    evaluate_models(tyro.cli(EvalConfig, prog=f"{program()} eval", args=arguments))


def prompts(arguments: list[str]) -> None:
    """Find the template with which a model does best."""
    import tyro

    from agents.prompt_search import PromptsConfig, search_prompts

    search_prompts(tyro.cli(PromptsConfig, prog=f"{program()} prompts", args=arguments))


def report(arguments: list[str]) -> None:
    """Make one page of runs: curves, texts token by token, settings."""
    import tyro

    from agents.reporting.command import ReportConfig
    from agents.reporting.command import report as run

    run(tyro.cli(ReportConfig, prog=f"{program()} report", args=arguments))


def list_names(arguments: list[str]) -> None:
    """Show what goes by name; `textgym list rewards NAME` tells all about one."""
    section, *names = arguments or [""]
    if section in ("-h", "--help"):
        print(
            f"usage: textgym list [{' | '.join(SECTIONS)}]\n"
            f"       textgym list {'|'.join(DOCUMENTATION)} NAME\n\n{list_names.__doc__}"
        )
        return
    if section in DOCUMENTATION and len(names) == 1:
        print(DOCUMENTATION[section](names[0]))
        return
    if names or section not in ("", *SECTIONS):
        raise ValueError(
            f"takes one of {', '.join(SECTIONS)} or nothing for all of them, and "
            f"{' or '.join(DOCUMENTATION)} with a name for what one of them does; got "
            f"{' '.join(arguments)}."
        )
    console = Console()
    for title in [section] if section else SECTIONS:
        console.print(title, style="bold")
        for name, *lines in SECTIONS[title]():
            console.print(Padding(f"[cyan]{escape(name)}[/]", (0, 0, 0, 2)))
            for line in lines:
                console.print(Padding(line, (0, 0, 0, 6)))


def _environments() -> Entries:
    yield "TextGen-v0", "Write a text token by token, with a reward at every token."


def _tasks() -> Entries:
    for name, what in tasks.describe().items():
        yield name + tasks.parameters(name), escape(what)


def _rewards() -> Entries:
    for reward in rewards.info():
        facts = []
        if reward.score_range is not None:
            facts.append("{:g} to {:g}".format(*reward.score_range))
        if reward.cost is not None:
            facts.append(f"{reward.cost:,.0f} µs a token" if reward.cost >= 1 else "< 1 µs a token")
        if reward.needs:
            facts.append(f"needs {reward.needs}")
        line = escape(" · ".join(facts)).replace("inf", "∞")
        yield reward.name + reward.parameters, escape(reward.summary), f"[dim]{line}[/]"


def _algorithms() -> Entries:
    from agents.algorithms.by_name import ALGORITHMS

    for name, algorithm in ALGORITHMS.items():
        yield f"{name} ({algorithm.kind.__name__})", escape(algorithm.what)


def _about_algorithm(name: str) -> str:
    from agents.algorithms.by_name import documentation

    return documentation(name)


def _models() -> Entries:
    for name, what in models.describe().items():
        yield (name if name in models.names() else f"FILE{name}"), escape(what)
    yield "DIR, hub id", "Any Hugging Face causal language model, or an adapter of PEFT."


Entries: TypeAlias = Iterator[tuple[str, ...]]
"""A name, and the lines below it."""

SECTIONS: dict[str, Callable[[], Entries]] = {
    "environments": _environments,
    "tasks": _tasks,
    "rewards": _rewards,
    "models": _models,
    "algorithms": _algorithms,
}


DOCUMENTATION: dict[str, Callable[[str], str]] = {
    "models": models.documentation,
    "tasks": tasks.documentation,
    "rewards": rewards.documentation,
    "algorithms": _about_algorithm,
}

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "tune": tune,
    "report": report,
    "sft": sft,
    "eval": evaluate,
    "sample": sample,
    "prompts": prompts,
    "score": score,
    "rate": rate,
    "serve": serve,
    "list": list_names,
    "train-reward": train_reward,
    "pretrain": pretrain,
    "run": run,
}


TOGETHER = ("train",)
"""The commands that processes of a launcher carry out together."""

OURS = ("agents", "textgym")
"""The packages of which nothing can be missing once they are installed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        _usage(Console())
        return 0
    if arguments[0] == "--version":
        print(f"textgym {textgym.__version__}")
        return 0
    name, *rest = arguments
    refused = _refused(name)
    if refused is not None:
        let_the_first_speak()
        _complain(refused)
        return 2
    # "module:function" rewards may stand in the directory where the command is given.
    sys.path.insert(0, os.getcwd())
    who = f"textgym {name}" + (f" in process {os.environ['RANK']}" if launched() else "")
    try:
        COMMANDS[name](rest)
    except BrokenPipeError:  # the reader has seen enough: textgym list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MissingExtra as error:
        _complain(f"{who}: {error}")
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OURS:  # a file of this package is gone
            raise
        cure = pip_install("'textgym[all]'")
        _complain(f"{who} needs {error.name}, which is not installed: {cure}")
        return 1
    except (ValueError, TypeError, OSError, FloatingPointError, textgym.RewardError) as error:
        # What a person can mend: the message says how. Anything else shows its traceback.
        _complain(f"{who}: {error}")
        return 1
    except KeyboardInterrupt as error:
        _end_line(error)
        return 130
    return 0


def _refused(name: str) -> str | None:
    """Why there is no such command to run here; None if there is."""
    if name not in COMMANDS:
        return f"textgym: no command {name!r}; {did_you_mean(name, COMMANDS)}."
    if launched() and name not in TOGETHER:
        return (
            f"textgym {name} runs in one process, and a launcher began several; call it without "
            f"torchrun or accelerate launch. {' and '.join(TOGETHER)} can run in several."
        )
    return None


def _end_line(error: KeyboardInterrupt) -> None:
    """Say that Ctrl-C came, unless the command has said more."""
    if not isinstance(error, Stopped):
        _complain("\nStopped.")


def _complain(message: str) -> None:
    """Print to standard error as it is: whole lines, so that paths and commands can be copied."""
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)


def _usage(console: Console) -> None:
    console.print(
        "[bold]textgym[/]: text generation as reinforcement learning, a reward at every token\n"
    )
    commands = Table.grid(padding=(0, 2))
    for name, command in COMMANDS.items():
        commands.add_row(f"  [bold]textgym {name}[/]", command.__doc__)
    console.print(commands)
    console.print(f"\nOptions of a command: {program()} COMMAND --help", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
