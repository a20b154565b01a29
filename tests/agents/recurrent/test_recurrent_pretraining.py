import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents.models import load_model
from agents.pretraining import PretrainConfig, pretrain
from agents.pretraining.model import held_out_loss, sample
from agents.pretraining.trainer import Trainer
from agents.recurrent import RecurrentForCausalLM

WORDS = ["the king", "my lord", "good night", "a horse", "sweet rose", "to be", "or not"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    speeches = [" ".join(rng.choice(WORDS, 6)) + f" {i}." for i in range(400)]
    path = tmp_path_factory.mktemp("corpus") / "speeches.txt"
    path.write_text("\n\n".join(speeches))
    return path


@pytest.fixture
def make_config(corpus, tmp_path):
    def make(kind, **settings):
        defaults = {
            "output": tmp_path / "model",
            "vocab_size": 300,
            "context": 16,
            "width": 30,  # no multiple of 2 * heads
            "layers": 2,
            "epochs": 0.6,
            "eval_every": 10,
            "checkpoint_every": 5,
            "validation_fraction": 0.1,
            "device": "cpu",
            "precision": "float32",
        }
        return PretrainConfig(corpus=(corpus,), backbone=kind, **{**defaults, **settings})

    return make


def quiet():
    return Console(file=io.StringIO(), width=200)


def test_it_learns_and_writes_a_directory_that_loads(kind, make_config):
    config = make_config(kind)
    record = pretrain(config, quiet())
    assert record["held_out_loss"] < math.log(record["vocab_size"]) - 0.5
    assert record["history"][0]["held_out_loss"] > record["held_out_loss"]
    for load in (
        load_model,
        lambda source: AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
    ):
        model = load(config.output)
        assert type(model) is RecurrentForCausalLM
        assert (model.config.kind, model.rnn.num_layers, model.rnn.hidden_size) == (kind, 2, 30)
        assert (model.config.eos_token_id, model.config.pad_token_id) == (0, 1)
        held_out = Trainer(replace(config, output=Path("elsewhere")), quiet()).held_out
        loss = held_out_loss(model, held_out, 16, 8, torch.float32)
        assert loss == pytest.approx(record["held_out_loss"], abs=2e-3)
    tokenizer = AutoTokenizer.from_pretrained(config.output)
    assert tokenizer.model_max_length > 10**9  # there are no positions that could run out
    card = (config.output / "README.md").read_text()
    assert record["command"] in card
    assert "recurrent" in card
    assert "import agents.recurrent" in card
    words = record["command"].split()
    assert tyro.cli(PretrainConfig, args=words[2:]).backbone == kind


def test_a_resumed_run_ends_as_the_uninterrupted_one(kind, make_config, tmp_path, monkeypatch):
    whole = make_config(kind, output=tmp_path / "whole")
    pretrain(whole, quiet())
    config, advance = make_config(kind), Trainer._advance

    def advance_and_stop(self):
        advance(self)
        if self.step == 13:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", advance_and_stop)
        with pytest.raises(SystemExit):
            pretrain(config, quiet())
    pretrain(config, quiet())
    for name in ("model.safetensors", "config.json"):
        assert (config.output / name).read_bytes() == (whole.output / name).read_bytes()
    histories = [
        [{**row, "seconds": 0} for row in json.loads(file.read_text())["history"]]
        for file in (config.output / "training.json", whole.output / "training.json")
    ]
    assert histories[0] == histories[1]


def test_bfloat16_trains_too(kind, make_config):
    record = pretrain(make_config(kind, precision="bfloat16"), quiet())
    assert record["precision"] == "bfloat16"
    assert record["held_out_loss"] < math.log(record["vocab_size"]) - 0.5


def test_samples_read_prompts_of_any_length(make_config):
    trainer = Trainer(make_config("gru"), quiet())
    prompt = "my lord, good night, " * 20
    written = sample(trainer.model, trainer.tokenizer, prompt, seed=3)
    assert written.startswith(prompt)
    assert written == sample(trainer.model, trainer.tokenizer, prompt, seed=3)


# Settings


def test_a_checkpoint_from_before_there_was_a_choice_goes_on(make_config):
    config = make_config("transformer", width=32, heads=2, layers=1, feed_forward=16)
    identity = config.identity("abc")
    assert "backbone" not in identity
    assert {"width": 32, "heads": 2, "layers": 1, "feed_forward": 16}.items() < identity.items()
    by_default = make_config("transformer", width=None, layers=None)
    sizes = {"width": 192, "layers": 4, "heads": 6, "feed_forward": 512}
    assert sizes.items() < by_default.identity("abc").items()
    # Those of recurrent networks held the sizes of a transformer, too.
    assert make_config("lstm", width=192, layers=4).identity("abc") == {
        **by_default.identity("abc"),
        "backbone": "lstm",
    }


def test_a_checkpoint_of_another_network_is_refused(make_config, monkeypatch):
    config = make_config("transformer", width=32, heads=2, layers=1, feed_forward=16)
    trainer = Trainer(config, quiet())
    trainer._save_checkpoint()
    with pytest.raises(ValueError, match=r"backbone was None and is now 'lstm'"):
        Trainer(replace(config, backbone="lstm", heads=None, feed_forward=None), quiet())


def test_a_recurrent_network_has_sizes_of_its_own(kind, make_config):
    assert make_config(kind, width=None, layers=None).shape == {"width": 256, "layers": 1}
    assert make_config(kind, width=30, layers=2).shape == {"width": 30, "layers": 2}
    for name in ("heads", "feed_forward"):
        with pytest.raises(ValueError, match=rf"{name} is 6, .* backbone is '{kind}'; leave it"):
            make_config(kind, **{name: 6})


def test_heads_must_fit(make_config):
    with pytest.raises(ValueError, match=r"multiple of 2 \* heads = 14"):
        make_config("transformer", width=30, heads=7)
