"""Loggers by name, in runs that go on, too."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.logger import Image, KVWriter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.loggers import check_loggers, make_logger
from textgym.extras import MissingExtra

WRITER = """
from stable_baselines3.common.logger import KVWriter

class Notes(KVWriter):
    def __init__(self, folder):
        self.folder, self.steps = folder, []

    def write(self, key_values, key_excluded, step=0):
        self.steps.append((step, key_values["score"]))

    def close(self):
        pass
"""


def log(folder: Path, names: list[str], steps: list[int], after: int = 0) -> list[KVWriter]:
    logger = make_logger(folder, names, after=after)
    for step in steps:
        logger.record("score", step / 100)
        logger.record("time/total_timesteps", step)
        logger.dump(step)
    logger.close()
    return logger.output_formats


def test_points_after_a_checkpoint_are_hidden_from_tensorboard(tmp_path: Path) -> None:
    log(tmp_path, ["tensorboard"], [100, 200, 300, 400])
    log(tmp_path, ["tensorboard"], [350, 450], after=200)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [point.step for point in events.Scalars("score")] == [100, 200, 350, 450]


def test_tensorboard_gets_texts_and_pictures(tmp_path: Path) -> None:
    logger = make_logger(tmp_path, ["tensorboard"])
    logger.record("samples/texts", "| a |\n|--|\n| b |", exclude=("csv",))
    logger.record("samples/token_rewards", Image(np.zeros((4, 6, 3), np.uint8), "HWC"))
    logger.dump(7)
    logger.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (picture,) = events.Images("samples/token_rewards")
    assert (picture.step, picture.width, picture.height) == (7, 6, 4)
    (text,) = events.Tensors("samples/texts/text_summary")
    assert b"| b |" in text.tensor_proto.string_val[0]


def test_files_go_on(tmp_path: Path) -> None:
    names = ["json", "log", "csv"]
    log(tmp_path, names, [100, 200])
    with (tmp_path / "progress.json").open("a") as file:
        file.write('{"torn')
    log(tmp_path, names, [150], after=100)
    lines = (tmp_path / "progress.json").read_text().splitlines()
    assert [json.loads(line)["score"] for line in lines] == [1.0, 1.5]
    assert (tmp_path / "progress.csv").read_text().splitlines()[1:] == ["1.0,100", "1.5,150"]
    assert (tmp_path / "log.txt").read_text().count("score") == 3


def test_tables_have_room_for_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = make_logger(tmp_path, ["stdout"])
    name = "rewards/a_reward_with_quite_a_long_name_indeed"
    logger.record(f"{name}/mean", 1.0)
    logger.record(f"{name}/std", 2.0)
    logger.dump()
    logger.close()
    assert "_indeed/mean" in capsys.readouterr().out


def test_a_writer_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_notes.py").write_text(WRITER + "\nclass Other: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    check_loggers(["my_notes:Notes"])
    own: Any = log(tmp_path, ["my_notes:Notes"], [100])[-1]
    assert (own.folder, own.steps) == (str(tmp_path), [(100, 1.0)])
    with pytest.raises(TypeError, match="expected a subclass of"):
        check_loggers(["my_notes:Other"])


def test_what_cannot_be_had_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    check_loggers(["tensorboard", "csv", "json", "log", "stdout"])
    with pytest.raises(ValueError, match="no logger named 'tensorbord'; did you mean 'tensorb"):
        check_loggers(["tensorbord"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"logger 'wandb' needs wandb.*'textgym\[wandb\]'"):
        check_loggers(["wandb"])
