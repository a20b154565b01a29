"""One training run: environment, policy, algorithm, and what is written on the way."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from rich.console import Console
from rich.markup import escape
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents.callbacks import EpisodeCollector, LiveView, SampleLog
from agents.candidates import find
from agents.config import RunConfig
from agents.devices import known_device
from agents.held_out import HeldOut
from agents.language_policy import LanguagePolicy, language_policy
from agents.report import described, write_report
from agents.run_directory import Checkpoint, RunDirectory, restore_progress
from agents.run_file import save_config
from agents.supervised.demonstrations import Demonstrations
from agents.validation import Best, Validation, best_template
from agents.vec_env import make_sb3_vec_env
from agents.wording import backbone_in_words, prompts_in_words, rewards_in_words, say
from textgym.process import TextProcess
from textgym.tokenizer import Tokenizer


def train(config: RunConfig, console: Console | None = None, *, resume: bool = False) -> Path:
    """Train as the config says, showing progress, and return the run's directory.

    Validation prompts are looked at every so often, and the model that does best on them is kept;
    the test prompts are judged before training, and once after it with that model.

    The directory gets `config.yaml`, `progress.csv`, TensorBoard events, `samples.jsonl`,
    `curves.png`, `samples.html`, `model/` (with an adapter folded in), `adapter/` if there is one,
    and `checkpoint.zip`. Model and checkpoint are also there when the run is interrupted or a
    reward fails.

    Args:
        config: The settings.
        console: Where to show progress; the terminal if None.
        resume: Go on with the run in `config.output`, up to `config.total_timesteps`.

    Raises:
        FileExistsError: If the directory holds a run already, and `resume` is not set.
        FileNotFoundError: If `resume` is set and there is no checkpoint.
        textgym.RewardError: If the reward failed.
    """
    console = console or Console()
    run = RunDirectory(config.output or _dated_directory(config))
    if resume:
        run.check_resumable()
    else:
        run.check_new()
    known_device(config.device)  # SB3 would take the CPU without a word
    config = replace(
        config,
        model=find(config.model).source,
        tokenizer=None if config.tokenizer is None else find(config.tokenizer).source,
    )
    env = make_sb3_vec_env("TextGen-v0", config.n_envs, env_kwargs=config.env_kwargs())
    process: TextProcess = env.get_attr("process")[0]
    algorithm = _algorithm(config, env, process, run, resume)
    policy = language_policy(algorithm.policy)
    task = process.task
    test, validation = HeldOut(config, task, "test"), HeldOut(config, task, "validation")
    if not test.count:
        test = HeldOut(config, task, "train", "no test split")
    _introduce(config, policy, process, run, console)

    before = run.load_before() if resume else test(policy)
    say(console, f"{test.what}: {described(before)} before training")
    if resume and algorithm.num_timesteps >= config.total_timesteps:
        say(
            console,
            f"All {algorithm.num_timesteps:,} tokens of this run are written; give a larger "
            "--total-timesteps to go on.",
        )
    run.path.mkdir(parents=True, exist_ok=True)
    run.save_before(before)
    save_config(config, run.config)

    keeper = _Keeper(config, policy, process.format.original, run)
    collector = EpisodeCollector()
    view = LiveView(config.total_timesteps, collector, process.tokenizer, console)
    checkpoint = Checkpoint(run.checkpoint)
    callbacks = [checkpoint, collector, SampleLog(run.samples, collector), view]
    if validation.count and config.validate_every:
        keeper.chooser = Validation(
            lambda templates: validation(policy, templates),
            process,
            keeper.save,
            run.best,
            config.validate_every,
        )
        callbacks.append(keeper.chooser)
    algorithm.set_logger(run.logger())
    started, first = time.perf_counter(), algorithm.num_timesteps
    finished = False
    try:
        algorithm.learn(
            max(config.total_timesteps - first, 0),
            callback=callbacks,
            log_interval=config.n_envs if config.algorithm.is_greedy else 1,  # episodes; rollouts
            reset_num_timesteps=not resume,
        )
        finished = True
    finally:
        view.stop()
        keeper.save_if_none()
        checkpoint.save()
        algorithm.logger.close()
        env.close()
        if not finished:
            say(
                console,
                f"Saved after {algorithm.num_timesteps:,} tokens. Go on: textgym train --resume "
                f"{shlex.quote(str(run.path))}",
            )
    seconds, steps = time.perf_counter() - started, algorithm.num_timesteps - first
    kl = "" if view.kl is None else f", at a KL of {view.kl:.1f} nats a text"
    say(console, f"{steps:,} tokens in {seconds:.0f} s{kl}")
    best = keeper.best
    if best is not None:
        say(
            console,
            f"{validation.what}: best after {best.timesteps:,} tokens, mean score "
            f"{best.score:+.3f}; that model was kept",
        )
    templates = best_template(process) if best is None else best.templates
    after = test(keeper.kept(algorithm.num_timesteps), templates)
    run.save_result(test.what, before, after, algorithm.num_timesteps)
    write_report(run, test.what, before, after, process, best, console)
    say(console, f"model    {run.model}")
    if config.lora_rank is not None:
        say(console, f"adapter  {run.adapter}")
    where = shlex.quote(str(run.path))
    say(console, f"Try it: textgym sample --model {where}")
    say(console, f"Judge it: textgym eval --model {shlex.quote(config.model)} {where}")
    return run.path


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


def _algorithm(
    config: RunConfig, env: VecEnv, process: TextProcess, run: RunDirectory, resume: bool
) -> BaseAlgorithm:
    """The algorithm, new or as the run's checkpoint has it."""
    named = config.algorithm
    imitates: dict[str, Any] = {}
    if config.sft_coef > 0:
        imitates["sft_data"] = _to_imitate(config, process)
    if resume:
        algorithm = named.kind.load(run.checkpoint, env=env, device=config.device, **imitates)
        restore_progress(algorithm)
        run.forget_after(algorithm.num_timesteps)
    else:
        kind: Any = named.kind
        algorithm = kind(named.policy, env, **config.algorithm_kwargs(), **imitates)
    # What goes on must not draw again the prompts and the tokens with which it began.
    algorithm.set_random_seed(_seed(config.seed, algorithm.num_timesteps))
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


def _seed(seed: int, timesteps: int) -> int:
    """The seed of what follows after so many tokens; the run's own at the start."""
    if timesteps == 0:
        return seed
    return int(np.random.SeedSequence([seed, timesteps]).generate_state(1)[0])


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
