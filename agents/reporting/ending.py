"""What a training leaves when it ends: a picture, a page, and tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from agents.episodes import Episode
from agents.evaluation import mean_score
from agents.prompt_search import templates_table, verdict
from agents.reporting.page import page
from agents.reporting.picture import plot_curves
from agents.reporting.run import load_run
from agents.reporting.terminal import comparison, described
from agents.run_directory import RunDirectory
from agents.validation import Best
from agents.wording import say
from textgym.files import atomic_write
from textgym.process import TextProcess


def write_report(
    run: RunDirectory,
    what: str,
    before: Sequence[Episode],
    after: Sequence[Episode],
    process: TextProcess,
    best: Best | None,
    console: Console,
    chat: Console,
) -> None:
    """Write the curves and the page of a run that has ended, and print what became of it.

    Args:
        run: The run; all else of it is written.
        what: The prompts on which it was judged, in a few words.
        before: What was written for them before training.
        after: The same after training, by the model that was kept.
        process: The environment's decision process.
        best: Which model that is; None for the last.
        console: Where to print the result.
        chat: Where to print what goes with it.
    """
    scores = mean_score(before), mean_score(after)
    plot_curves(run.progress, run.curves, *scores, what, None if best is None else best.timesteps)
    atomic_write(run.report, page([load_run(run.path)]))
    chat.print(comparison(what, before, after, process.tokenizer))
    if process.prompts.selection is not None and len(process.prompts.templates) > 1:
        chat.print(templates_table(process.prompts.selection, process.prompts.templates))
        say(chat, verdict(process.prompts.selection))
    if best is not None and best.templates is not None:
        put = f"{what}: put by all templates in turn before, and after by {best.templates[0]!r}"
        say(chat, put)
    say(console, f"{what}: {described(before)} before,", "bold")
    interval = " (mean, 95% interval)" if len(after) > 1 else ""
    say(console, f"{' ' * len(what)}  {described(after)} after{interval}", "bold")
    say(console, "curves  ", whole=str(run.curves))
    say(console, "report  ", whole=str(run.report))
