"""One training run: what is trained, how it is watched, and what it leaves."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from agents.algorithms.collect import TokenCollector
from agents.build import build_algorithm
from agents.candidates import find
from agents.checkpointing import Checkpoint, Checkpoints, load_checkpoint
from agents.checkpointing.algorithm import WEIGHTS, Stateful
from agents.checkpointing.checkpoints import tokens_of
from agents.checkpointing.room import bytes_of_run, check_room
from agents.config import RunConfig
from agents.devices import known_device
from agents.distributed.launcher import misunderstandings, restarted, this_launch
from agents.distributed.learner import learner_of
from agents.distributed.processes import Processes, join
from agents.distributed.run_settings import check_together
from agents.episodes import Episode
from agents.evaluation import episodes
from agents.health import Diverged, symptoms
from agents.health.aftermath import latest_good, way_on
from agents.health.check import HealthCheck
from agents.health.diverged import dated
from agents.held_out import HeldOut
from agents.interrupts import Stopped, interrupts
from agents.introduction import introduction
from agents.kept_model import KeptModel
from agents.language_policy import language_policy
from agents.loggers import check_loggers
from agents.reporting.about import write_about
from agents.reporting.ending import write_report
from agents.reporting.progress import read_progress
from agents.reporting.terminal import described
from agents.reporting.texts import has_critic, read_by_both, write_texts
from agents.run_directory import RunDirectory
from agents.run_file import check_same_run, save_config
from agents.run_lock import check_in_common, run_lock
from agents.run_start import check_same_start, save_start
from agents.validation import Validation, best_template
from agents.vec_env import make_sb3_vec_env
from agents.watching import EpisodeCollector, LiveView, RewardLog, SampleLog, SamplePictures
from agents.watching.course import duration, number
from agents.weights import load_weights
from agents.wording import prompts_in_words, say
from textgym.process import TextProcess
from textgym.shell import program

_PICTURES = 50
"""How often a run shows samples to the loggers that take pictures, at most."""


def train(
    config: RunConfig,
    console: Console | None = None,
    *,
    resume: bool = False,
    callbacks: Sequence[BaseCallback] = (),
) -> Path:
    """Train as the config says, showing progress, and return the run's directory.

    Validation prompts are looked at every so often, and the model that does best on them is kept;
    the test prompts are judged before training, and once after it with that model.

    The directory gets `config.yaml`, `progress.csv`, TensorBoard events, `samples.jsonl`,
    `curves.png`, `report.html`, `model/` (with an adapter folded in), `adapter/` if there is one,
    and `checkpoints/`, with which a run goes on that was stopped, by whatever: on the CPU it ends
    with the very weights of the run that was not. Ctrl-C ends the update, and saves.

    Processes that a launcher began (`torchrun`, `accelerate launch`) train one model together: each
    has environments and mini-batches of its own, as many as the config says, tokens are counted
    over all, and the first of them writes and speaks. If the launcher begins them anew, because one
    has ended, they go on with the run in `config.output`.

    Args:
        config: The settings.
        console: Where to show progress; the terminal if None.
        resume: Go on with the run in `config.output`, up to `config.total_timesteps`.
        callbacks: Others of Stable-Baselines3. Between two updates they come before the checkpoint,
            so that an interrupt which they cause there saves and stops the run at once.

    Raises:
        Diverged: If a loss, a gradient, a reward, a value or a probability became no number.
        FileExistsError: If the directory holds a run already, and `resume` is not set.
        FileNotFoundError: If `resume` is set and there is no run.
        KeyboardInterrupt: Ctrl-C, after the checkpoint was written.
        OSError: If the directory cannot be written to, or there is no room for what the run writes.
        textgym.RewardError: If the reward failed.
    """
    known_device(config.device)  # SB3 would take the CPU without a word
    processes = join(config.device)
    console = console or Console()
    output = config.output or _dated_directory(config)
    if processes.count > 1:  # which may work in other directories
        output = processes.of_first("directory", Path(os.path.abspath(output)))
    run = RunDirectory(output)
    if processes.any("was begun anew", restarted()):
        resume = processes.of_first("run before", resume or run.is_of(this_launch()))
    _check_directory(run, resume, processes)
    check_together(config, processes.count)
    check_loggers(config.loggers)
    config = replace(
        config,
        model=find(config.model).source,
        tokenizer=None if config.tokenizer is None else find(config.tokenizer).source,
    )
    if resume:
        check_same_run(config, run.config)
    training = _Training(config, run, console, callbacks)
    with run_lock(run.path) if processes.is_first else nullcontext():
        check_in_common(run.path, processes)
        training.begin(resume)
        training.learn()
        training.judge()
    return run.path


class _Training:
    """A run, from its beginning, or from its last checkpoint on.

    Args:
        config: The settings.
        run: Its directory.
        console: Where its result is printed, and unless it is quiet all else.
        callbacks: Others beside its own.
    """

    def __init__(
        self,
        config: RunConfig,
        run: RunDirectory,
        console: Console,
        callbacks: Sequence[BaseCallback] = (),
    ) -> None:
        self.config = config
        self.run = run
        self.processes = join(config.device)
        self.console = console if self.processes.is_first else Console(quiet=True)
        self.callbacks = callbacks
        self.chat = Console(quiet=True) if config.quiet else self.console
        self.env = make_sb3_vec_env("TextGen-v0", config.n_envs, env_kwargs=config.env_kwargs())
        self.process: TextProcess = self.env.get_attr("process")[0]
        self.algorithm = build_algorithm(config, self.env, self.process)
        self.policy = language_policy(self.algorithm.policy)
        self.checkpoints = Checkpoints(run.checkpoints, config.keep_checkpoints)
        self.learner = learner_of(self.algorithm)
        self.kept = KeptModel(config, self.algorithm, self.process.format.original, run)
        task = self.process.task
        self.validation = HeldOut(config, task, "validation")
        self.test = HeldOut(config, task, "test")
        if not self.test.count:
            self.test = HeldOut(config, task, "train", "no test split")

    def begin(self, resume: bool) -> None:
        """Judge the model as it is, and make the directory a run; or take it as it was."""
        run, config, algorithm = self.run, self.config, self.algorithm
        is_first = self.processes.is_first
        if is_first:
            check_room(run.path, bytes_of_run(self.policy, config.keep_checkpoints))
        say(self.chat, introduction(config, self.policy, self.process))
        for misunderstanding in misunderstandings():
            say(self.console, f"Warning. {misunderstanding}", "yellow")
        prompts = prompts_in_words(self.process.format.is_chat)
        say(self.chat, f"Prompts are {prompts}. Writing to", whole=str(run.path))
        # What one process sees of the directory, all go by: a file may be late elsewhere.
        files = [path.is_file() for path in (run.start, run.before)]
        has_start, has_before = self.processes.of_first("files of the run", files)
        if resume and has_start:
            check_same_start(run.start, algorithm, self.process)
            load_weights(algorithm.policy, run.start)
            if isinstance(algorithm, TokenCollector) and algorithm.reference is not None:
                algorithm.refer_to_policy()
        else:
            save_start(run.start, algorithm, self.process)
        if resume and has_before:
            self.before = run.load_before()
        else:
            self.before = self.test.write(self.policy)
            if is_first:
                run.save_before(self.before)
        before = described(episodes(self.before))
        say(self.chat, f"{self.test.what}: {before} before training")
        if is_first:
            write_about(run.about, config, self.policy.device)
            if not resume:
                save_config(config, run.config)

    def learn(self) -> None:
        """Train to the last token, or to the end of the update in which Ctrl-C came."""
        run, config, algorithm = self.run, self.config, self.algorithm
        collector = EpisodeCollector()
        health = HealthCheck(collector, self.console, max_new_tokens=config.max_new_tokens)
        watching = [collector, health, *self._callbacks(collector)]
        parts = {type(part).__name__: part for part in watching if isinstance(part, Stateful)}
        first = self._go_on(parts)
        has_log = self.processes.is_first and run.progress.is_file()
        history = read_progress(run.progress) if has_log else ()
        view = LiveView(self.chat, collector, history=history)
        checkpoint = Checkpoint(self.checkpoints, config.checkpoint_every, parts)
        # Health before the checkpoint, which is to be of something good.
        callbacks = [collector, health, *self.callbacks, checkpoint, *watching[2:], view]
        try:
            self._train(callbacks, checkpoint, view)
        except Diverged as error:
            view.stop()
            error.batch = error.batch or health.learned_from()
            save_batch = partial(error.save, self._diverged, self.process.tokenizer.decode)
            self._try("what was being learned", save_batch)
            self._keep_what_is_good()
            error.way_on = way_on(run, config, self.policy, self.kept.best, error.by_reward)
            raise
        except BaseException as error:
            view.stop()
            was_said = self._say_how_to_go_on()
            self._keep_what_is_good()
            if was_said and isinstance(error, KeyboardInterrupt):
                raise Stopped from error
            raise
        finally:
            view.stop()
            algorithm.logger.close()
            self.env.close()
        self.kept.save_if_none()
        steps, time = algorithm.num_timesteps - first, duration(view.course.seconds)
        kl = "" if view.kl is None else f", at a KL of {abs(view.kl):.1f} nats a text"
        say(self.chat, f"{steps:,} tokens in {time}{kl}")

    def judge(self) -> None:
        """Let the model that was kept write for the test prompts, and report."""
        run, config, test, best = self.run, self.config, self.test, self.kept.best
        timesteps = self.algorithm.num_timesteps
        if best is not None:
            say(
                self.chat,
                f"{self.validation.what}: best after {best.timesteps:,} tokens, mean score "
                f"{number(best.score)}; that model was kept",
            )
        policy = self.kept.policy_after(timesteps)
        templates = self._best_template() if best is None else best.templates
        after = test.write(policy, templates)
        trained = self.learner.whole()
        if not self.processes.is_first:
            return
        scored = test.what, episodes(self.before), episodes(after)
        run.save_result(*scored, timesteps)
        texts = [*self.before, *after]
        readings = read_by_both(trained, run.start, policy, config.final_temperature, texts)
        write_texts(
            run.texts,
            test.what,
            timesteps if best is None else best.timesteps,
            self.before,
            after,
            readings,
            self.process.tokenizer,
            critic=has_critic(config),
        )
        write_report(run, *scored, self.process, best, self.console, self.chat)
        say(self.console, "model   ", whole=str(run.model))
        if config.lora_rank is not None:
            say(self.console, "adapter ", whole=str(run.adapter))
        worse = symptoms.worse_than_before(*scored[1:], config.of_algorithm("learning_rate"))
        if worse is not None:
            say(self.console, f"Warning. After {timesteps:,} tokens, {worse}", "yellow")
        where = shlex.quote(str(run.path))
        say(self.chat, "Try it:", whole=f"{program()} sample --model {where}")
        judge = f"{program()} eval --model {shlex.quote(config.model)} {where}"
        say(self.chat, "Judge it:", whole=judge)

    def _callbacks(self, collector: EpisodeCollector) -> list[BaseCallback]:
        """What logs, and chooses the model that is kept."""
        config, validation = self.config, self.validation
        callbacks: list[BaseCallback] = [RewardLog(collector)]
        if self.processes.is_first:
            every = max(config.total_timesteps // _PICTURES, 1)
            samples = SampleLog(self.run.samples, collector)
            callbacks += [samples, SamplePictures(every, collector)]
        if validation.count and config.validate_every:
            self.kept.chooser = Validation(
                self._validate,
                self._best_template,
                self.kept.save,
                self.run.best,
                config.validate_every,
            )
            callbacks.append(self.kept.chooser)
        return callbacks

    def _go_on(self, parts: Mapping[str, Stateful]) -> int:
        """Load the newest checkpoint, if there is any; returns its tokens.

        Only then what was logged after it is dropped: a checkpoint that is refused costs nothing.
        """
        run, config, algorithm = self.run, self.config, self.algorithm
        algorithm.set_logger(Logger(str(run.path), []))  # which gets back what it had to write
        latest = self.processes.of_first("newest checkpoint", self.checkpoints.latest)
        first = 0 if latest is None else tokens_of(latest)
        if latest is not None:
            try:
                before = load_checkpoint(algorithm, latest, parts)
            except ValueError as error:
                raise ValueError(f"{error}{self._older}") from error
            say(self.chat, f"Going on after {first:,} tokens{self._otherwise(before)}.")
            self._say_if_over()
        if self.processes.is_first:
            if latest is not None:
                save_config(config, run.config)  # which may have more tokens to write
            run.forget_after(first)
            writers = run.logger(config.loggers, after=first).output_formats
            algorithm.logger.output_formats += writers
        return first

    def _validate(self, templates: tuple[str, ...] | None) -> list[Episode]:
        """Let the policy write for the validation prompts."""
        with self.learner.gathered():
            return self.validation(self.policy, templates)

    def _best_template(self) -> tuple[str, ...] | None:
        """The template that pays best so far, as the first process knows it."""
        return self.processes.of_first("best template", best_template(self.process))

    @property
    def _diverged(self) -> Path:
        """Where this process says from what it was learning when it diverged."""
        path, index = self.run.diverged, self.processes.index
        return path.with_name(f"{path.name}-{index}") if index else path

    def _train(self, callbacks: list[BaseCallback], checkpoint: Checkpoint, view: LiveView) -> None:
        config, algorithm = self.config, self.algorithm
        stopping = "Stopping after this update, which is then saved"
        first = algorithm.num_timesteps
        tell = view.tell if self.processes.is_first else lambda message: None
        with interrupts(stopping, tell) as interrupted, dated(algorithm):
            checkpoint.interrupted = interrupted
            algorithm.learn(
                max(config.total_timesteps - first, 0),
                callback=callbacks,
                # Episodes, or rollouts.
                log_interval=config.n_envs if config.algorithm.is_greedy else 1,
                reset_num_timesteps=algorithm._last_obs is None,
            )
            if algorithm.num_timesteps > first:
                checkpoint.save()
        if self.processes.any("was interrupted", bool(interrupted)):
            raise KeyboardInterrupt

    def _keep_what_is_good(self) -> None:
        """See to it that a run that ends too early has a model: that of its last checkpoint."""
        if not self.processes.is_first:
            return
        latest = latest_good(self.run)
        if self.kept.best is None and latest is not None:
            self._try("the model", partial(self.kept.save_of, latest / WEIGHTS))

    def _try(self, what: str, save: Callable[[], None]) -> None:
        """Save something after an error, which is the one to be told, even if the disk is full."""
        try:
            save()
        except OSError as error:
            say(self.console, f"{what} could not be saved: {error}")

    @property
    def _older(self) -> str:
        """What to do about a checkpoint that cannot be loaded, as the end of a message."""
        older = self.checkpoints.all[:-1]
        if not older:
            return ""
        return f" There is an older one, {older[-1]}: remove the newer to go on from it."

    def _otherwise(self, before: int) -> str:
        """What another number of processes than before means, as the end of a sentence."""
        now = self.processes.count
        if now == before:
            return ""
        return (
            f", in {now} instead of {before} processes: rollouts and mini-batches have "
            f"{now / before:.3g} times as many tokens"
        )

    def _say_if_over(self) -> None:
        if self.algorithm.num_timesteps >= self.config.total_timesteps:
            say(
                self.chat,
                f"All {self.algorithm.num_timesteps:,} tokens of this run are written; give a "
                "larger --total-timesteps to go on.",
            )

    def _say_how_to_go_on(self) -> bool:
        """Say which checkpoint there is; False if there is none."""
        latest = self.checkpoints.latest
        if latest is None:
            return False
        written, saved = self.algorithm.num_timesteps, tokens_of(latest)
        what = f"Saved after {saved:,} tokens."
        if written != saved:
            what = f"Stopped after {written:,} tokens; the newest checkpoint is after {saved:,}."
        again = f"{program()} train --resume {shlex.quote(str(self.run.path))}"
        launcher = " (by its launcher)" if self.processes.count > 1 else ""
        say(self.console, f"{what} Go on{launcher}:", whole=again)
        return True


def _check_directory(run: RunDirectory, resume: bool, processes: Processes) -> None:
    """Raise, in all processes, if the first finds that a run cannot begin or go on here."""
    refused: OSError | None = None
    if processes.is_first:
        try:
            if resume:
                run.check_resumable()
            else:
                run.check_new()
        except OSError as error:
            refused = error
    refused = processes.of_first("directory is refused", refused)
    if refused is not None:
        raise refused


def _dated_directory(config: RunConfig) -> Path:
    return Path("runs") / f"{config.algo}-{datetime.now():%Y%m%d-%H%M%S}"
