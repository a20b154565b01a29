"""Weights & Biases: by a module that stands for it, and offline where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import HParam, Image, Logger

from agents.loggers import WandbLog

HAS_WANDB = importlib.util.find_spec("wandb") is not None


class Service:
    """What the writer uses of wandb: runs by id, whose steps never go back."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.given: list[dict[str, Any]] = []
        self.Html = self.Image = self.Histogram = lambda value: ("shown", value)

    def init(self, *, id: str | None, **given: Any) -> Any:  # wandb's own name
        self.given.append({"id": id, **given})
        id = id or f"run{len(self.runs)}"
        old = self.runs.get(id)
        run = SimpleNamespace(id=id, step=0 if old is None else old.step + 1, finished=False)
        run.rows = {} if old is None else old.rows
        run.config = SimpleNamespace(update=lambda values, allow_val_change: values)

        def log(row: dict[str, Any], step: int) -> None:
            assert step >= run.step, "wandb drops such a row, with a warning"
            run.step = step
            run.rows.setdefault(step, {}).update(row)

        run.log, run.finish = log, lambda: setattr(run, "finished", True)
        self.runs[id] = run
        return run


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)  # type: ignore[arg-type]
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return service


def write(folder: Path, steps: dict[int, float]) -> None:
    logger = Logger(None, [WandbLog(folder)])
    for step, score in steps.items():
        logger.record("score", score)
        logger.dump(step)
    logger.close()


def test_a_run_that_goes_on_is_the_same_run(tmp_path: Path, service: Service) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "config.yaml").write_text("# a run\nseed: 3\n")
    write(folder, {100: 1.0, 200: 2.0})
    write(folder, {200: 2.0, 300: 3.0})  # from the checkpoint before 200
    write(tmp_path / "two", {100: 9.0})
    assert [given["id"] for given in service.given] == [None, "run0", None]
    assert service.given[0]["config"] == {"seed": 3}
    assert (service.given[0]["project"], service.given[0]["name"]) == ("textgym", "one")
    assert service.given[1]["resume"] == "allow"
    assert service.runs["run0"].rows == {
        100: {"score": 1.0}, 200: {"score": 2.0}, 300: {"score": 3.0},
    }  # fmt: skip
    assert service.runs["run0"].finished


def test_texts_pictures_and_histograms(tmp_path: Path, service: Service) -> None:
    logger = Logger(None, [WandbLog(tmp_path)])
    logger.record("text", "<b>")
    logger.record("picture", Image(torch.zeros(3, 4, 6), "CHW"))
    logger.record("grey", Image(np.zeros((6, 4)), "WH"))
    logger.record("many", torch.arange(4).reshape(2, 2))
    logger.record("settings", HParam({"a": 1}, {"b": 2.0}))
    logger.record("elsewhere", 1, exclude="wandb")
    logger.dump(5)
    logger.dump(5)  # a second row of the same step is no step back
    (row,) = service.runs["run0"].rows.values()
    assert row["text"] == ("shown", "<pre>&lt;b&gt;</pre>")
    assert row["picture"][1].shape == (4, 6, 3)
    assert row["grey"][1].shape == (4, 6)
    assert row["many"][1].tolist() == [0, 1, 2, 3]
    assert row.keys() == {"text", "picture", "grey", "many"}


@pytest.mark.skipif(not HAS_WANDB, reason="wandb is not installed")
@pytest.mark.filterwarnings("ignore")  # wandb's own
def test_wandb_itself_takes_it_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = Logger(None, [WandbLog(tmp_path)])
    logger.record("score", 1.0)
    logger.record("text", "a text")
    logger.record("picture", Image(np.zeros((4, 6, 3), np.uint8), "HWC"))
    logger.dump(5)
    logger.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    again = WandbLog(tmp_path)
    again.close()
    assert again._run.id == (tmp_path / "wandb-id").read_text().strip()
