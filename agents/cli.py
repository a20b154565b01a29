"""The command line: `textgym train`, `sample`, `list` and `pretrain`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

import textgym
from textgym import rewards, tasks
from textgym.registry import did_you_mean

# Each command imports what it needs: `textgym list` does not wait for torch.


def train(arguments: list[str]) -> None:
    """Train a language model with a reward at every token."""
    import tyro

    from agents.config import RunConfig, config_arguments
    from agents.train import train as run

    config_file, arguments = _take(arguments, "--config")
    resumed, arguments = _take(arguments, "--resume")
    if resumed is not None:
        config_file = str(Path(resumed) / "config.yaml")
        arguments = [*arguments, "--output", resumed]
    if config_file is not None:
        # The run file comes first, so that an option given beside it has the last word.
        arguments = [*config_arguments(Path(config_file)), *arguments]
    config = tyro.cli(
        RunConfig,
        prog="textgym train",
        args=arguments,
        description=f"{RunConfig.__doc__} --config FILE repeats a run from its config.yaml; "
        "--resume DIR goes on with a run that was stopped.",
    )
    run(config, resume=resumed is not None)


def _take(arguments: list[str], option: str) -> tuple[str | None, list[str]]:
    """The value of an option, or None, and the arguments without it."""
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            if not equals and at + 1 == len(arguments):
                raise ValueError(f"{option} wants a path, such as {option} runs/mine")
            end = at + 1 if equals else at + 2
            return value if equals else arguments[at + 1], arguments[:at] + arguments[end:]
    return None, arguments


def sample(arguments: list[str]) -> None:
    """Let a model write, every token coloured by its reward."""
    import tyro

    from agents.sample import SampleConfig
    from agents.sample import sample as run

    run(tyro.cli(SampleConfig, prog="textgym sample", args=arguments))


def pretrain(arguments: list[str]) -> None:
    """Train a tokenizer and a small language model from scratch on your texts."""
    import tyro

    from agents.pretraining import PretrainConfig
    from agents.pretraining import pretrain as run

    run(tyro.cli(PretrainConfig, prog="textgym pretrain", args=arguments))


def list_names(arguments: list[str]) -> None:
    """Show the environments, tasks, rewards and models that go by name."""
    if arguments:
        raise ValueError(f"textgym list takes no arguments, got {' '.join(arguments)}.")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    sections = {
        "environments": {
            "TextGen-v0": "Write a text token by token; a reward at every token.",
        },
        "tasks": tasks.describe(),
        "rewards": rewards.describe(),
        "models": {
            "builtin": "2.2 M parameters, Shakespeare and everyday English; comes along.",
            "DIR or hub id": "Any Hugging Face causal language model.",
        },
    }
    for title, entries in sections.items():
        table.add_row(f"[dim]{title}[/]")
        for name, meaning in entries.items():
            table.add_row(f"  {name}", meaning)
    Console().print(table)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "sample": sample,
    "list": list_names,
    "pretrain": pretrain,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    errors = Console(stderr=True)
    if not arguments or arguments[0] in ("-h", "--help"):
        _usage(Console())
        return 0
    if arguments[0] == "--version":
        print(f"textgym {textgym.__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        errors.print(f"[red]textgym: no command {name!r}[/]; {did_you_mean(name, COMMANDS)}.")
        return 2
    # "module:function" rewards may stand in the directory where the command is given.
    sys.path.insert(0, os.getcwd())
    try:
        COMMANDS[name](rest)
    except (ValueError, TypeError, OSError, textgym.RewardError) as error:
        # What a person can mend: the message says how. Anything else shows its traceback.
        errors.print(f"[red]textgym {name}:[/]", end=" ")
        errors.print(str(error), markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        errors.print("\nStopped. What was trained is saved in its directory.")
        return 130
    return 0


def _usage(console: Console) -> None:
    console.print(
        "[bold]textgym[/]: text generation as reinforcement learning, a reward at every token\n"
    )
    for name, command in COMMANDS.items():
        console.print(f"  [bold]textgym {name:<9}[/] {command.__doc__}")
    console.print("\nOptions of a command: textgym COMMAND --help")


if __name__ == "__main__":
    sys.exit(main())
