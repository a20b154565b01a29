import functools
import io
import json
import math
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents.checkpointing import load_tree
from agents.pretraining import trainer as module
from agents.pretraining.files import train_tokenizer
from agents.pretraining.model import held_out_loss, resolve_precision, sample
from agents.pretraining.trainer import (
    PretrainConfig,
    Trainer,
    checkpoints_of,
    learning_rate_at,
    pretrain,
)
from agents.pretraining.windows import cut, epoch_windows, token_stream, windows_per_epoch

WORDS = ["the king", "my lord", "good night", "a horse", "sweet rose", "to be", "or not"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    speeches = [" ".join(rng.choice(WORDS, 6)) + f" {i}." for i in range(400)]
    path = tmp_path_factory.mktemp("corpus") / "speeches.txt"
    path.write_text("\n\n".join(speeches))
    return path


def make_config(corpus: Path, output: Path) -> PretrainConfig:
    return PretrainConfig(
        corpus=(corpus,),
        output=output,
        vocab_size=300,
        context=16,
        width=16,
        layers=1,
        heads=2,
        feed_forward=16,
        batch_size=8,
        epochs=0.6,
        eval_every=10,
        checkpoint_every=5,
        validation_fraction=0.1,
        device="cpu",
        precision="float32",
    )


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="session")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "model"
    pretrain(make_config(corpus, output), quiet())
    return output


def test_training_lowers_the_held_out_loss_below_uniform(finished: Path) -> None:
    record = json.loads((finished / "training.json").read_text())
    assert record["held_out_loss"] < math.log(record["vocab_size"]) - 0.5
    assert record["held_out_loss"] == min(row["held_out_loss"] for row in record["history"])
    assert record["history"][0]["held_out_loss"] > record["held_out_loss"]
    nats = record["held_out_loss"] * (record["held_out_tokens"] - 1)
    assert record["bits_per_byte"] == pytest.approx(nats / math.log(2) / record["held_out_bytes"])


def test_the_output_is_a_plain_hugging_face_directory(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    }
    model = AutoModelForCausalLM.from_pretrained(finished)
    tokenizer = AutoTokenizer.from_pretrained(finished)
    assert model.dtype is torch.float16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.vocab_size == len(tokenizer)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0, 1)
    config = model.generation_config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 0, 1)


def test_the_written_weights_have_the_recorded_loss(corpus: Path, finished: Path) -> None:
    record = json.loads((finished / "training.json").read_text())
    trainer = Trainer(make_config(corpus, finished.parent / "again"), quiet())
    model = AutoModelForCausalLM.from_pretrained(finished, dtype=torch.float32)
    loss = held_out_loss(model, trainer.held_out, 16, 8, torch.float32)
    assert loss == pytest.approx(record["held_out_loss"], abs=2e-3)


def test_the_model_card_repeats_the_command(finished: Path) -> None:
    record = json.loads((finished / "training.json").read_text())
    assert record["command"] in (finished / "README.md").read_text()
    words = shlex.split(record["command"])
    assert words[:2] == ["textgym", "pretrain"]
    assert tyro.cli(PretrainConfig, args=words[2:]).as_data() == record["arguments"]


load_tokenizer = functools.cache(AutoTokenizer.from_pretrained)


@given(st.text())
def test_raw_tokenizer_and_transformers_agree_and_lose_nothing(finished: Path, text: str) -> None:
    raw = Tokenizer.from_file(str(finished / "tokenizer.json"))
    ids = raw.encode(text).ids
    assert ids[0] == 0
    assert raw.decode(ids) == text.replace("<|endoftext|>", "").replace("<|pad|>", "")
    assert load_tokenizer(finished)(text).input_ids == ids


def test_an_empty_prompt_is_one_token() -> None:
    tokenizer = train_tokenizer(["some text"], 300)
    assert tokenizer.encode("").ids == [0]
    assert tokenizer.encode("", add_special_tokens=False).ids == []
    assert tokenizer.id_to_token(0) == "<|endoftext|>"
    assert tokenizer.id_to_token(1) == "<|pad|>"


class _Stop(BaseException):
    """Stands for the power cut: nothing catches it."""


def _stop_at(monkeypatch: pytest.MonkeyPatch, step: int, action) -> None:
    advance = Trainer._advance

    def advance_and_act(self: Trainer) -> None:
        advance(self)
        if self.step == step:
            action()

    monkeypatch.setattr(Trainer, "_advance", advance_and_act)


def _power_cut() -> None:
    raise _Stop


def test_a_resumed_run_ends_as_the_uninterrupted_one(
    corpus: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(corpus, tmp_path / "model")
    with monkeypatch.context() as patch:
        _stop_at(patch, 23, _power_cut)
        with pytest.raises(_Stop):
            pretrain(config, quiet())
    latest = checkpoints_of(config.output).latest
    assert latest is not None
    assert load_tree(latest)["step"] == 20
    pretrain(config, quiet())
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (config.output / name).read_bytes() == (finished / name).read_bytes()
    resumed, whole = (
        json.loads((directory / "training.json").read_text())["history"]
        for directory in (config.output, finished)
    )
    without_time = [[{**row, "seconds": 0} for row in rows] for rows in (resumed, whole)]
    assert without_time[0] == without_time[1]


def test_ctrl_c_saves_the_step_it_interrupts(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(corpus, tmp_path / "model")
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        _stop_at(patch, 7, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, quiet())
    assert signal.getsignal(signal.SIGINT) is before
    latest = checkpoints_of(config.output).latest
    assert latest is not None
    assert load_tree(latest)["step"] == 7
    assert Trainer(config, quiet()).step == 7


def test_a_power_cut_after_the_first_look_leaves_a_run_that_goes_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(make_config(corpus, tmp_path / "model"), checkpoint_every=1_000)
    with monkeypatch.context() as patch:
        _stop_at(patch, 12, _power_cut)
        with pytest.raises(_Stop):
            pretrain(config, quiet())
    assert (config.output / "training.json").is_file()
    assert Trainer(config, quiet()).step == 0


def test_it_says_how_to_go_on_and_what_it_left(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(make_config(corpus, tmp_path / "model"), epochs=0.1, resume=False)
    said = io.StringIO()
    with monkeypatch.context() as patch:
        _stop_at(patch, 2, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, Console(file=said, width=80))
    (line,) = (line for line in said.getvalue().splitlines() if "Go on:" in line)
    assert line.startswith("Saved after 2 steps. Go on: textgym pretrain ")
    words = shlex.split(line.partition("Go on: ")[2])
    again = tyro.cli(PretrainConfig, args=words[2:])
    assert again == replace(config, resume=True)
    pretrain(again, Console(file=said, width=80))
    assert f"model    {config.output}\n" in said.getvalue()
    assert f"Try it: textgym sample --model {config.output}\n" in said.getvalue()


def test_a_checkpoint_of_another_run_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(corpus, tmp_path / "model")
    with monkeypatch.context() as patch:
        _stop_at(patch, 6, _power_cut)
        with pytest.raises(_Stop):
            pretrain(config, quiet())
    with pytest.raises(ValueError, match=r"learning_rate was 0\.003 and is now 0\.1.*--no-resume"):
        pretrain(replace(config, learning_rate=0.1), quiet())
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text() + "\n\nA new speech.")
    with pytest.raises(ValueError, match="corpus was"):
        pretrain(replace(config, corpus=(other,)), quiet())
    assert Trainer(replace(config, sample_prompts=("My",)), quiet()).step == 5
    assert Trainer(replace(config, resume=False), quiet()).step == 0


def test_a_finished_model_is_not_overwritten(corpus: Path, finished: Path) -> None:
    with pytest.raises(ValueError, match="already holds a model"):
        pretrain(make_config(corpus, finished), quiet())


def test_an_output_that_is_a_file_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        pretrain(make_config(corpus, tmp_path / "file"), quiet())


def test_a_corpus_smaller_than_a_batch_is_refused(corpus: Path, tmp_path: Path) -> None:
    config = replace(make_config(corpus, tmp_path / "model"), batch_size=100_000)
    with pytest.raises(ValueError, match="less than one batch of 100000 windows"):
        pretrain(config, quiet())


def test_a_diverging_run_stops(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "negative_log_likelihood", lambda *_: torch.tensor(math.inf, requires_grad=True)
    )
    with pytest.raises(
        FloatingPointError, match=r"after 0 steps: the loss is inf(?s:.)*--learning-rate"
    ):
        pretrain(make_config(corpus, tmp_path / "model"), quiet())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs is 0"),
        ("learning_rate", float("nan"), "learning_rate is nan"),
        ("vocab_size", 257, "at least 258"),
        ("width", 18, r"multiple of 2 \* heads = 4"),
        ("validation_fraction", 1.0, "between 0 and 1"),
        ("seed", -1, "must not be negative"),
    ],
)
def test_config_refuses_what_cannot_be_trained(
    tmp_path: Path, field: str, value: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(make_config(tmp_path, tmp_path), **{field: value})


def test_the_dataclass_is_the_command_line() -> None:
    args = ["a.txt", "b", "b", "--output", "o", "--sample-prompts", "My lord", "", "--no-resume"]
    config = tyro.cli(PretrainConfig, args=args)
    assert config.corpus == (Path("a.txt"), Path("b"), Path("b"))
    assert config.sample_prompts == ("My lord", "")
    assert config.resume is False
    expected = "textgym pretrain a.txt b b --output o --sample-prompts 'My lord' '' --no-resume"
    assert config.command_line() == expected


@given(st.integers(1, 3000), st.integers(0, 500), st.floats(1e-6, 1.0))
def test_learning_rate_rises_to_its_peak_and_falls_to_2_percent(
    steps: int, warmup: int, peak: float
) -> None:
    rates = [learning_rate_at(step, steps, warmup, peak) for step in range(steps)]
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    assert max(rates) == pytest.approx(peak)
    top = int(np.argmax(rates))
    assert all(np.diff(rates[: top + 1]) >= 0)
    assert all(np.diff(rates[top:]) <= peak * 1e-9)
    if steps > 2:
        assert rates[-1] == pytest.approx(0.02 * peak)


@given(st.data(), st.integers(2, 12), st.integers(0, 200))
def test_windows_lie_inside_the_stream_and_cover_it(
    data: st.DataObject, context: int, seed: int
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=30))
    stream = np.concatenate([[0, *[9] * length] for length in lengths] + [[0]])
    starts = epoch_windows(stream, context, 0, np.random.default_rng(seed))
    assert len(starts) == windows_per_epoch(len(stream), context)
    if len(starts) == 0:
        return
    assert starts.min() >= 0
    assert starts.max() + context < len(stream)
    # No start is further than half a window from its place on the grid.
    assert np.diff(np.sort(starts)).max(initial=0) <= 2 * context
    gaps = np.abs(starts[:, None] - np.flatnonzero(stream == 0)).min(axis=1)
    at_document = gaps == 0
    fits = np.flatnonzero(stream == 0) + context < len(stream)
    if fits.all():
        assert np.all(at_document | (gaps > context // 2))


def test_most_windows_start_where_a_document_starts() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 30, 500)
    stream = np.concatenate([[0, *[9] * length] for length in lengths] + [[0]])
    starts = epoch_windows(stream, 64, 0, rng)
    assert (stream[starts] == 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_no_window_moves_past_the_end(seed: int) -> None:
    stream = np.array([0] + 8 * [9] + [0, 9, 9, 0])
    starts = epoch_windows(stream, 4, 0, np.random.default_rng(seed))
    assert cut(stream, starts, 4).shape == (2, 5)


def test_token_stream_wraps_every_document() -> None:
    tokenizer = train_tokenizer(["a b", "c"], 300)
    ids = token_stream(tokenizer, ["a b", "c"])
    text = tokenizer.decode(ids.tolist(), skip_special_tokens=False)
    assert text == "<|endoftext|>a b<|endoftext|>c<|endoftext|>"


def test_held_out_loss_is_the_mean_over_windows_of_one(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(make_config(corpus, tmp_path / "model"), quiet())
    stream = trainer.held_out[: 16 * 5 + 4]
    expected, model = 0.0, trainer.model
    with torch.no_grad():
        for start in range(0, len(stream) - 1, 16):
            window = torch.from_numpy(stream[start : start + 17])[None]
            log_probs = model(window[:, :-1]).logits.log_softmax(-1)
            expected -= float(log_probs.gather(-1, window[:, 1:, None]).sum())
    loss = held_out_loss(model, stream, 16, 3, torch.float32)
    assert loss == pytest.approx(expected / (len(stream) - 1), rel=1e-5)


def test_samples_continue_the_prompt_and_leave_the_generator_alone(
    corpus: Path, tmp_path: Path
) -> None:
    trainer = Trainer(make_config(corpus, tmp_path / "model"), quiet())
    state = torch.get_rng_state()
    first = sample(trainer.model, trainer.tokenizer, "my lord", seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.startswith("my lord")
    assert first == sample(trainer.model, trainer.tokenizer, "my lord", seed=3)
    long = "my lord, good night, " * 20
    kept = sample(trainer.model, trainer.tokenizer, long, seed=3)
    assert kept[:6] in long


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("bfloat16", cpu) is torch.bfloat16
    assert resolve_precision("float32", cpu) is torch.float32
    assert resolve_precision("auto", cpu) in (torch.bfloat16, torch.float32)


def test_bfloat16_trains_too(corpus: Path, tmp_path: Path) -> None:
    config = replace(make_config(corpus, tmp_path / "model"), precision="bfloat16", epochs=0.2)
    record = pretrain(config, quiet())
    assert record["precision"] == "bfloat16"
    assert record["held_out_loss"] < math.log(record["vocab_size"])
