"""One run of TRL's GRPOTrainer on the same model, prompts and reward, judged the same way.

It has whatever makes it fast on a CPU: no gradient checkpointing, no logging, no saving, no data
loader processes, the dynamic cache (a static one was as fast, continuous batching far slower), and
the probabilities of a rollout from its first pass where they are the same.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

from comparison.clock import Clock
from transformers import PreTrainedTokenizerFast, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

from agents.config import RunConfig
from agents.models import load_model
from learning.course import learner
from learning.judge import Judge
from learning.trial import Point, Trial
from textgym.rewards import as_trl
from textgym.tasks import make as make_task
from textgym.tasks.base import Stream
from textgym.tokenizer import Tokenizer

ADAM_EPSILON = 1e-5
"""As our policies and SB3 have it; TRL's own is 1e-8."""

MOST_STEPS = 1_000_000
"""More than any run takes: the number of tokens ends it."""


def train(trial: Trial) -> list[Point]:
    """Carry out a run, and return the points of its learning curve."""
    config = trial.config
    # What judges TRL's weights, in the same number type whatever they are trained in.
    policy: Any = learner(replace(config, dtype="float32")).policy
    judge = Judge(trial, policy)
    with TemporaryDirectory() as directory:
        trainer, reward = _trainer(config, directory)
        looks = _Looks(trial, trainer, policy, judge, reward)
        trainer.add_callback(looks)
        trainer.train()
    judge.close()
    return looks.points


class _CountingReward:
    """A reward as TRL calls it, which also counts tokens and keeps scores."""

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        self.tokens = 0
        self.scores: list[float] = []
        assert config.reward is not None
        self._reward = as_trl(config.reward, tokenizer, max_new_tokens=config.max_new_tokens)
        self.__name__ = self._reward.__name__

    def __call__(self, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        self.tokens += sum(map(len, completion_ids))
        scores = self._reward(completion_ids=completion_ids, **columns)
        self.scores += scores
        return scores


def _trainer(config: RunConfig, directory: str) -> tuple[Any, _CountingReward]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets
        import trl

    ours = config.algorithm_kwargs()
    texts_a_step = ours["batch_size"] // config.max_new_tokens
    own = Tokenizer.from_pretrained(config.model)
    examples = make_task(config.task).split("train")
    assert not isinstance(examples, Stream)
    prompts = [example.prompt for example in examples]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own.backend,
        eos_token=own.backend.id_to_token(own.eos_token_id),
        pad_token=own.backend.id_to_token(own.pad_token_id),
    )
    assert all(tokenizer(prompt)["input_ids"] == own.encode(prompt) for prompt in prompts)
    reward = _CountingReward(config, own)
    arguments = trl.GRPOConfig(
        output_dir=directory,
        use_cpu=True,
        bf16=config.dtype == "bfloat16",
        gradient_checkpointing=False,
        per_device_train_batch_size=texts_a_step,
        steps_per_generation=(config.n_episodes or config.n_envs) // texts_a_step,
        num_generations=config.group_size,
        num_iterations=ours["n_epochs"],
        max_completion_length=config.max_new_tokens,
        loss_type="bnpo",
        beta=ours["kl_coef"],
        temperature=config.temperature,
        top_k=0,
        top_p=1.0,
        learning_rate=ours["learning_rate"],
        lr_scheduler_type="constant",
        adam_epsilon=ADAM_EPSILON,
        max_grad_norm=config.max_grad_norm,
        max_steps=MOST_STEPS,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
    )
    trainer = trl.GRPOTrainer(
        model=load_model(config.model),
        reward_funcs=reward,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, reward


class _Looks(TrainerCallback):
    """Judges the weights before training, and so many times on its way, after an update."""

    def __init__(
        self, trial: Trial, trainer: Any, policy: Any, judge: Judge, reward: _CountingReward
    ) -> None:
        self.points: list[Point] = []
        self._trial = trial
        self._trained = trainer.model
        self._steps = trainer.args.steps_per_generation * trainer.args.num_iterations
        self._policy = policy
        self._judge = judge
        self._reward = reward

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._clock = Clock()
        self._look()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> TrainerControl:
        if state.global_step % self._steps:
            return control  # in the middle of an update
        tokens, budget = self._reward.tokens, self._trial.budget
        if tokens >= len(self.points) * budget / self._trial.points:
            self._look()
        control.should_training_stop = tokens >= budget
        return control

    def _look(self) -> None:
        self._clock.stop()
        self._policy.backbone.model.load_state_dict(self._trained.state_dict())
        reward = self._reward
        point = self._judge.point(self._policy, reward.tokens, self._clock, reward.scores)
        self.points.append(point)
        reward.scores = []
        self._clock.go_on()
