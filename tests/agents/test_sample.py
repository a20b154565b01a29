"""Texts of a model, as people see them."""

from io import StringIO

import pytest
from rich.console import Console

from agents.config import RunConfig
from agents.run_file import save_config
from agents.sample import SampleConfig, sample
from textgym.tokenizer import Tokenizer


@pytest.fixture
def run(tmp_path, make_llama, tiny_tokenizer_dir):
    model = tmp_path / "run" / "model"
    make_llama(vocab_size=11).save_pretrained(model)
    Tokenizer.from_pretrained(tiny_tokenizer_dir).save_pretrained(model)
    save_config(RunConfig(), tmp_path / "run" / "config.yaml")
    return tmp_path / "run"


def printed(model, **settings):
    out = StringIO()
    config = SampleConfig(
        model=str(model), prompt=("abc",), reward="length", max_new_tokens=5, **settings
    )
    sample(config, Console(file=out, width=80))
    return out.getvalue()


def test_a_run_stands_for_its_model(run):
    of_run = printed(run)
    assert of_run.count("abc") >= 3
    assert "mean score" in of_run
    assert of_run == printed(run / "model")
    assert of_run != printed(run, seed=1)


def test_a_run_without_a_model(run):
    (run / "model").rename(run / "elsewhere")
    with pytest.raises(FileNotFoundError, match="textgym train --resume"):
        printed(run)
