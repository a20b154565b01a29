"""TRL's GRPOTrainer: generation, rewards and as many passes over each batch as `TokenPPO` has."""

from __future__ import annotations

import warnings
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from speed.stopwatch import now
from speed.workload import EOS, PAD, TableReward, Workload


class Grpo:
    """A GRPO trainer on a workload, timed by whole iterations.

    An iteration generates `rows` texts in one batch, scores them with the table that the
    environment of the other side pays by, and makes `passes` optimizer steps, each over the whole
    batch. Everything that would cost TRL time without need is off: reference model, gradient
    checkpointing, logging, saving, data loader processes.
    """

    def __init__(self, workload: Workload, passes: int, learning_rate: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from datasets import Dataset
            from trl import GRPOConfig, GRPOTrainer

        self.passes = passes
        self._table = TableReward(workload.vocabulary).table
        self._tokens: list[int] = []
        self._directory = TemporaryDirectory()
        arguments = GRPOConfig(
            output_dir=self._directory.name,
            use_cpu=workload.device == "cpu",
            bf16=workload.dtype == "bfloat16",
            gradient_checkpointing=False,
            per_device_train_batch_size=workload.rows,
            num_generations=8,
            num_iterations=passes,
            max_completion_length=workload.new,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            beta=0.0,
            learning_rate=learning_rate,
            lr_scheduler_type="constant",
            max_grad_norm=0.5,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=0,
        )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=workload.tokenizer.backend, eos_token=EOS, pad_token=PAD
        )
        self._clock = _StepClock(workload.device)
        self._trainer = GRPOTrainer(
            model=workload.model(),
            reward_funcs=self._reward,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": workload.prompts}),
            processing_class=tokenizer,
            callbacks=[self._clock],
        )
        self._trainer.remove_callback(PrinterCallback)

    def run(self, iterations: int) -> list[tuple[int, float]]:
        """Tokens of the completions and seconds of some iterations; one more warms up before."""
        self._clock.times.clear()
        self._tokens.clear()
        self._trainer.args.max_steps = self.passes * (iterations + 1)
        self._trainer.train()
        ends = self._clock.times[self.passes - 1 :: self.passes]
        seconds = np.diff(ends).tolist()
        return list(zip(self._tokens[1:], seconds, strict=True))

    def _reward(self, completion_ids: list[list[int]], **_: Any) -> list[float]:
        """The sum of what the table says of each token; TRL gives all completions of a batch."""
        self._tokens.append(sum(map(len, completion_ids)))
        return [float(self._table[ids].sum()) for ids in completion_ids]


class _StepClock(TrainerCallback):
    """Notes when each optimizer step is over."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(now(self._device))
