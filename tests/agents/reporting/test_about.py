"""What a run tells of itself beside its settings."""

import json

import torch

from agents.config import RunConfig
from agents.reporting.about import write_about


def about(tmp_path, **settings):
    write_about(tmp_path / "about.json", RunConfig(**settings), torch.device("cpu"))
    return json.loads((tmp_path / "about.json").read_text())


def test_what_was_chosen_and_what_the_algorithm_takes(tmp_path):
    told = about(tmp_path, output=tmp_path, seed=3, n_epochs=5, algo="ppo")
    assert told["changed"] == ["seed", "n_epochs"]
    assert told["settled"]["learning_rate"] == 1e-4
    assert "n_epochs" not in told["settled"]
    # A wheel's own name for its version may leave out what it was built for.
    assert torch.__version__.startswith(told["versions"]["torch"].partition("+")[0])
    assert told["machine"]["device"] == "cpu"


def test_nothing_was_chosen(tmp_path):
    assert about(tmp_path)["changed"] == []
