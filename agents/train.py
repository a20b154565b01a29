"""One training run: environment, policy, algorithm, and what is written on the way."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gymnasium import spaces
from rich.console import Console
from rich.markup import escape
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from agents.algorithms.collect import TokenCollector
from agents.candidates import find
from agents.checkpointing import Checkpoint, Checkpoints, load_checkpoint
from agents.checkpointing.algorithm import Stateful
from agents.checkpointing.checkpoints import tokens_of
from agents.checkpointing.room import bytes_of_run, check_room
from agents.config import RunConfig
from agents.devices import known_device
from agents.evaluation import episodes
from agents.health import Diverged
from agents.health.aftermath import keep_what_is_good
from agents.health.check import HealthCheck
from agents.health.diverged import dated
from agents.held_out import HeldOut
from agents.interrupts import interrupts
from agents.language_policy import LanguagePolicy, language_policy
from agents.loggers import check_loggers
from agents.reporting.about import write_about
from agents.reporting.ending import write_report
from agents.reporting.progress import read_progress
from agents.reporting.terminal import described
from agents.reporting.texts import has_critic, read_by_both, write_texts
from agents.run_directory import RunDirectory
from agents.run_file import save_config
from agents.supervised.demonstrations import Demonstrations
from agents.validation import Best, Validation, best_template
from agents.vec_env import make_sb3_vec_env
from agents.watching import EpisodeCollector, LiveView, RewardLog, SampleLog, SamplePictures
from agents.weights import load_weights, save_weights
from agents.wording import backbone_in_words, prompts_in_words, rewards_in_words, say
from textgym.process import TextProcess
from textgym.tokenizer import Tokenizer

_PICTURES = 50
"""How often a run shows samples to the loggers that take pictures, at most."""


def train(config: RunConfig, console: Console | None = None, *, resume: bool = False) -> Path:
    """Train as the config says, showing progress, and return the run's directory.

    Validation prompts are looked at every so often, and the model that does best on them is kept;
    the test prompts are judged before training, and once after it with that model.

    The directory gets `config.yaml`, `progress.csv`, TensorBoard events, `samples.jsonl`,
    `curves.png`, `report.html`, `model/` (with an adapter folded in), `adapter/` if there is one,
    and `checkpoints/`, with which a run goes on that was stopped, by whatever: on the CPU it ends
    with the very weights of the run that was not. Ctrl-C ends the update, and saves.

    Args:
        config: The settings.
        console: Where to show progress; the terminal if None.
        resume: Go on with the run in `config.output`, up to `config.total_timesteps`.

    Raises:
        Diverged: If a loss, a gradient, a reward, a value or a probability became no number.
        FileExistsError: If the directory holds a run already, and `resume` is not set.
        FileNotFoundError: If `resume` is set and there is no run.
        KeyboardInterrupt: Ctrl-C, after the checkpoint was written.
        OSError: If the directory cannot be written to, or there is no room for what the run writes.
        textgym.RewardError: If the reward failed.
    """
    console = console or Console()
    chat = Console(quiet=True) if config.quiet else console  # for what is no warning or result
    run = RunDirectory(config.output or _dated_directory(config))
    if resume:
        run.check_resumable()
    else:
        run.check_new()
    check_loggers(config.loggers)
    known_device(config.device)  # SB3 would take the CPU without a word
    config = replace(
        config,
        model=find(config.model).source,
        tokenizer=None if config.tokenizer is None else find(config.tokenizer).source,
    )
    env = make_sb3_vec_env("TextGen-v0", config.n_envs, env_kwargs=config.env_kwargs())
    process: TextProcess = env.get_attr("process")[0]
    algorithm = _algorithm(config, env, process)
    policy = language_policy(algorithm.policy)
    check_room(run.path, bytes_of_run(policy, config.keep_checkpoints))
    if not resume:
        run.start.unlink(missing_ok=True)  # of a run that was stopped before it was one
        run.before.unlink(missing_ok=True)
    checkpoints = Checkpoints(run.checkpoints, config.keep_checkpoints)
    task = process.task
    test, validation = HeldOut(config, task, "test"), HeldOut(config, task, "validation")
    if not test.count:
        test = HeldOut(config, task, "train", "no test split")
    _introduce(config, policy, process, run, chat)
    _begin_as_before(run, algorithm)
    before = run.load_before() if run.before.is_file() else test.write(policy)
    say(chat, f"{test.what}: {described(episodes(before))} before training")
    run.save_before(before)
    save_config(config, run.config)
    write_about(run.about, config, policy.device)

    latest = checkpoints.latest
    run.forget_after(0 if latest is None else tokens_of(latest))
    keeper = _Keeper(config, policy, process.format.original, run)
    collector = EpisodeCollector()
    health = HealthCheck(collector, console, max_new_tokens=config.max_new_tokens)
    view = LiveView(
        chat, collector, history=read_progress(run.progress) if run.progress.is_file() else ()
    )
    callbacks: list[BaseCallback] = [
        RewardLog(collector),
        SampleLog(run.samples, collector),
        SamplePictures(max(config.total_timesteps // _PICTURES, 1), collector),
        view,
    ]
    if validation.count and config.validate_every:
        keeper.chooser = Validation(
            lambda templates: validation(policy, templates),
            process,
            keeper.save,
            run.best,
            config.validate_every,
        )
        callbacks.append(keeper.chooser)
    parts = [collector, health, *callbacks]
    remembering = {type(part).__name__: part for part in parts if isinstance(part, Stateful)}
    checkpoint = Checkpoint(checkpoints, config.checkpoint_every, remembering)
    algorithm.set_logger(
        run.logger(config.loggers, after=0 if latest is None else tokens_of(latest))
    )
    if latest is not None:
        load_checkpoint(algorithm, latest, remembering)
        say(chat, f"Going on after {algorithm.num_timesteps:,} tokens.")
    if algorithm.num_timesteps >= config.total_timesteps:
        say(
            console,
            f"All {algorithm.num_timesteps:,} tokens of this run are written; give a larger "
            "--total-timesteps to go on.",
        )
    started, first = time.perf_counter(), algorithm.num_timesteps
    try:
        _learn(
            config, algorithm, [collector, health, checkpoint, *callbacks], checkpoint, view.tell
        )
    except Diverged as error:
        error.batch = error.batch or health.learned_from()
        error.save(run.diverged, process.tokenizer.decode)
        error.way_on = keep_what_is_good(
            run, config, policy, keeper.best, keeper.save, by_reward=error.by_reward
        )
        raise
    except BaseException:
        view.stop()
        keeper.save_if_none()
        _say_how_to_go_on(run, checkpoints, console)
        raise
    finally:
        view.stop()
        algorithm.logger.close()
        env.close()
    keeper.save_if_none()
    seconds, steps = time.perf_counter() - started, algorithm.num_timesteps - first
    kl = "" if view.kl is None else f", at a KL of {view.kl:.1f} nats a text"
    say(chat, f"{steps:,} tokens in {seconds:.0f} s{kl}")
    best = keeper.best
    if best is not None:
        say(
            chat,
            f"{validation.what}: best after {best.timesteps:,} tokens, mean score "
            f"{best.score:+.3f}; that model was kept",
        )
    templates = best_template(process) if best is None else best.templates
    kept = keeper.kept(algorithm.num_timesteps)
    after = test.write(kept, templates)
    scored = test.what, episodes(before), episodes(after)
    run.save_result(*scored, algorithm.num_timesteps)
    readings = read_by_both(policy, run.start, kept, config.final_temperature, [*before, *after])
    write_texts(
        run.texts,
        test.what,
        algorithm.num_timesteps if best is None else best.timesteps,
        before,
        after,
        readings,
        process.tokenizer,
        critic=has_critic(config),
    )
    write_report(run, *scored, process, best, console, chat)
    say(console, f"model    {run.model}")
    if config.lora_rank is not None:
        say(console, f"adapter  {run.adapter}")
    where = shlex.quote(str(run.path))
    say(chat, f"Try it: textgym sample --model {where}")
    say(chat, f"Judge it: textgym eval --model {shlex.quote(config.model)} {where}")
    return run.path


def _begin_as_before(run: RunDirectory, algorithm: BaseAlgorithm) -> None:
    """Keep the weights with which a run begins, or take those with which it began."""
    if not run.start.is_file():
        save_weights(algorithm.policy, run.start)
        return
    load_weights(algorithm.policy, run.start)
    if isinstance(algorithm, TokenCollector) and algorithm.reference is not None:
        algorithm.refer_to_policy()


def _learn(
    config: RunConfig,
    algorithm: BaseAlgorithm,
    callbacks: list[BaseCallback],
    checkpoint: Checkpoint,
    tell: Callable[[str], None],
) -> None:
    """Train to the last token, or to the end of the update in which Ctrl-C came."""
    stopping = "Stopping after this update, which is then saved"
    with interrupts(stopping, tell) as interrupted, dated(algorithm):
        checkpoint.interrupted = interrupted
        algorithm.learn(
            max(config.total_timesteps - algorithm.num_timesteps, 0),
            callback=callbacks,
            log_interval=config.n_envs if config.algorithm.is_greedy else 1,  # episodes; rollouts
            reset_num_timesteps=algorithm._last_obs is None,
        )
        checkpoint.save()
    if interrupted:
        raise KeyboardInterrupt


def _say_how_to_go_on(run: RunDirectory, checkpoints: Checkpoints, console: Console) -> None:
    latest = checkpoints.latest
    if latest is not None:
        say(
            console,
            f"Saved after {tokens_of(latest):,} tokens. Go on: textgym train --resume "
            f"{shlex.quote(str(run.path))}",
        )


class _Keeper:
    """Saves the model of a run: the best by validation, or without it the last."""

    def __init__(
        self, config: RunConfig, policy: LanguagePolicy, tokenizer: Tokenizer, run: RunDirectory
    ) -> None:
        self.chooser: Validation | None = None
        self._config = config
        self._policy = policy
        self._tokenizer = tokenizer
        self._run = run

    @property
    def best(self) -> Best | None:
        """The best by validation; None if there is no validation."""
        return None if self.chooser is None else self.chooser.best

    def save(self) -> None:
        """Save the model as it is, whole, and its adapter alone if it has one."""
        self._policy.save_pretrained(self._run.model, self._tokenizer, merged=True)
        if self._config.lora_rank is not None:
            self._policy.save_pretrained(self._run.adapter, self._tokenizer)

    def save_if_none(self) -> None:
        """Save the model as it is, if validation has chosen none."""
        if self.best is None:
            self.save()

    def kept(self, timesteps: int) -> LanguagePolicy:
        """The policy whose model was saved.

        Args:
            timesteps: Tokens that the policy has learned from by now.
        """
        if self.best is None or self.best.timesteps == timesteps:
            return self._policy
        policy = self._policy
        assert isinstance(policy.action_space, spaces.Discrete)
        of_run = replace(self._config, model=str(self._run.model), backbone=None)
        kept: Any = self._config.algorithm.policy
        made: LanguagePolicy = kept(
            policy.observation_space,
            policy.action_space,
            lambda _: 0.0,
            **{**of_run.policy_kwargs(), "lora": None},
        ).to(policy.device)
        return made


def _algorithm(config: RunConfig, env: VecEnv, process: TextProcess) -> BaseAlgorithm:
    """The algorithm, as it begins."""
    imitates: dict[str, Any] = {}
    if config.sft_coef > 0:
        imitates["sft_data"] = _to_imitate(config, process)
    kind: Any = config.algorithm.kind
    algorithm: BaseAlgorithm = kind(
        config.algorithm.policy, env, **config.algorithm_kwargs(), **imitates
    )
    # How many numbers were drawn to make the network shall make no difference.
    algorithm.set_random_seed(config.seed)
    return algorithm


def _to_imitate(config: RunConfig, process: TextProcess) -> Demonstrations:
    """The texts of a mixed loss: of the task, as the environment puts its prompts, or a corpus."""
    context_length = process.prompts.context_length
    if config.sft_corpus:
        return Demonstrations.of_corpus(config.sft_corpus, process.tokenizer, context_length)
    return Demonstrations.of_task(
        process.task,
        "train",
        process.format,
        templates=[template.text for template in process.prompts.templates],
        max_new_tokens=config.max_new_tokens,
        context_length=context_length,
        prompt_truncation=config.prompt_truncation,
    )


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number:,}"


def _dated_directory(config: RunConfig) -> Path:
    return Path("runs") / f"{config.algo}-{datetime.now():%Y%m%d-%H%M%S}"


def _introduce(
    config: RunConfig,
    policy: LanguagePolicy,
    process: TextProcess,
    run: RunDirectory,
    console: Console,
) -> None:
    weights = [p for name, p in policy.named_parameters() if not name.startswith("q_net_target")]
    size, trained = (
        _count(sum(p.numel() for p in some))
        for some in (weights, [p for p in weights if p.requires_grad])
    )
    size += " parameters" + ("" if size == trained else f", {trained} of them trained")
    model = config.model
    if config.backbone is not None:
        model = backbone_in_words(config.backbone, config.tokenizer or config.model)
    reward = rewards_in_words(process.reward.current_weights)
    prompts = prompts_in_words(process.format.is_chat)
    console.print(
        f"[bold]{config.algo.upper()}[/] trains [bold]{escape(model)}[/] "
        f"({size}, on {policy.device}) on {escape(process.task.name)}: "
        f"{config.timing} [bold]{escape(reward)}[/] reward, writing to {escape(str(run.path))}\n"
        f"Prompts are {prompts}.",
        soft_wrap=True,
    )
