"""TRL's own trainers, on texts and returns that are given to them."""

from dataclasses import dataclass

import pytest
import torch


@dataclass(frozen=True)
class Text:
    """A prompt, what was written after it, and what that is worth."""

    prompt: list[int]
    written: list[int]
    score: float


class Trl:
    """A TRL trainer that is told what its model writes, and what that earns.

    Advantages, losses and updates are what TRL makes of it.
    """

    def __init__(self, algorithm, model, texts, tokenizer_dir, directory, **arguments):
        import trl
        from datasets import Dataset
        from transformers import AutoTokenizer
        from transformers.trainer_callback import PrinterCallback

        tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir, pad_token="<|endoftext|>")
        # The reference model is read from where the model came from.
        model.save_pretrained(directory / "model")
        trainer_class, config_class = (
            getattr(trl, f"{algorithm}{kind}") for kind in ("Trainer", "Config")
        )
        self.trainer = trainer_class(
            model=type(model).from_pretrained(directory / "model"),
            reward_funcs=lambda **_: [text.score for text in texts],
            args=config_class(
                output_dir=str(directory / "trl"),
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                per_device_train_batch_size=len(texts),
                max_completion_length=max(len(text.written) for text in texts),
                shuffle_dataset=False,
                lr_scheduler_type="constant",
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **arguments,
            ),
            train_dataset=Dataset.from_dict(
                {
                    "prompt": [
                        tokenizer.decode(text.prompt)
                        for text in texts[:: arguments["num_generations"]]
                    ]
                }
            ),
            processing_class=tokenizer,
        )
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.model.train()
        # What a step of training sets.
        self.trainer.current_gradient_accumulation_steps = 1
        self.texts = texts
        self._grpo = algorithm == "GRPO"
        self.trainer._generate_single_turn = self._generate
        self._prompts = [{"prompt": tokenizer.decode(text.prompt)} for text in texts]

    def _generate(self, prompt_ids, *_):
        assert prompt_ids == [text.prompt for text in self.texts]
        written = [text.written for text in self.texts]
        return (written, None) if self._grpo else written

    def inputs(self):
        """What TRL makes of the texts: advantages, and log-probabilities before any update."""
        return self.trainer._generate_and_score_completions(self._prompts)

    def loss(self, inputs):
        """TRL's loss, with its gradient in the model."""
        self.trainer.model.zero_grad()
        loss = self.trainer._compute_loss(self.trainer.model, inputs)
        loss.backward()
        return loss.item()

    def train(self, optimizer, steps):
        """Let TRL train for some steps, with an optimizer of the same kind."""
        same = {k: v for k, v in optimizer.defaults.items() if k != "fused"}
        model = self.trainer.model
        self.trainer.optimizer = type(optimizer)(model.parameters(), **same)
        self.trainer.args.max_steps = steps
        self.trainer.train()


@pytest.fixture
def make_trl(tiny_tokenizer_dir, tmp_path):
    """Makes a TRL trainer, "GRPO" or "RLOO", of a model, texts and TRL's arguments.

    Texts are in the order of their groups: prompt, completion, and what that is worth.
    """

    def make(algorithm, model, texts, **arguments):
        made_of = [Text(*text) for text in texts]
        return Trl(algorithm, model, made_of, tiny_tokenizer_dir, tmp_path, **arguments)

    return make


@pytest.fixture
def make_algorithm(make_llama):
    """Makes an algorithm of a tiny random Llama, always the same one."""
    from agents import TransformerPolicy, make_sb3_vec_env

    def make(algorithm, env_kwargs, policy=None, *, n_envs=4, vocab_size=11, **settings):
        env = make_sb3_vec_env("TextGen-v0", n_envs, seed=0, env_kwargs=env_kwargs)
        torch.manual_seed(0)
        policy_kwargs = {"model": make_llama(vocab_size=vocab_size), **(policy or {})}
        return algorithm(TransformerPolicy, env, seed=0, policy_kwargs=policy_kwargs, **settings)

    return make
