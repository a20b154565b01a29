"""What the README shows must run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_script_runs(capsys: pytest.CaptureFixture[str]) -> None:
    script = next(block for block in BLOCKS if "evaluate_policy" in block)
    # Less of the same: the lengths are all that differ from what the README shows.
    shorter = {"n_steps=256": "n_steps=64", "2_048": "64", "episodes=20": "episodes=2"}
    for shown, short in shorter.items():
        assert shown in script
        script = script.replace(shown, short)
    torch.set_num_threads(1)
    exec(script, {})
    assert "ep_rew_mean" in capsys.readouterr().out


@pytest.mark.parametrize("algorithm", ["PPO", "TokenPPO"])
def test_both_run_with_texts_side_by_side(algorithm: str) -> None:
    blocks = [b for b in BLOCKS if f"model = {algorithm}(" in b and "model.learn(1_024)" in b]
    (script,) = blocks
    shorter = {
        '"TextGen-v0", 16': '"TextGen-v0", 2',
        "n_steps=64": "n_steps=8",
        "=256": "=16",
        "1_024": "16",
    }
    for shown, short in shorter.items():
        assert shown in script
        script = script.replace(shown, short)
    torch.set_num_threads(1)
    names: dict[str, Any] = {}
    exec(script, names)
    assert type(names["model"]).__name__ == algorithm
    assert names["model"].num_timesteps == 16


def test_groups_run() -> None:
    (script,) = [block for block in BLOCKS if "GRPO(" in block]
    shorter = {'"TextGen-v0", 64': '"TextGen-v0", 8', "4_096": "16"}
    for shown, short in shorter.items():
        assert shown in script
        script = script.replace(shown, short)
    torch.set_num_threads(1)
    names: dict[str, Any] = {}
    exec(script, names)
    assert names["model"].num_timesteps >= 16


def test_the_table_has_every_algorithm() -> None:
    from agents.algorithms.by_name import ALGORITHMS

    table = README.partition("| algorithm |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `(\S+)`", table, re.MULTILINE))
    assert named == {name for name, algorithm in ALGORITHMS.items() if not algorithm.is_stock}


def test_the_stages_of_a_pipeline_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents.pipeline import read_pipeline

    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("A text.\n\nAnother.\n")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "reference": "b"}\n')
    (tmp_path / "stages.yaml").write_text(text)
    assert read_pipeline(tmp_path / "stages.yaml")


def test_every_figure_is_filled_in() -> None:
    assert not re.findall(r"@[A-Z0-9]+@|README_", README)


def test_the_task_of_ones_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from textgym import TextGenEnv

    (block,) = [block for block in BLOCKS if "class Riddles" in block]
    (tmp_path / "my_tasks.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "my_tasks", ModuleType("my_tasks"))  # which is taken back
    monkeypatch.delitem(sys.modules, "my_tasks")
    env = TextGenEnv(task="my_tasks:Riddles")
    env.reset(options={"prompt": "What has keys and opens no door?\n", "reference": "piano"})
    for token in env.tokenizer.encode_plain("A piano"):
        env.step(token)
    info = env.step(env.tokenizer.eos_token_id)[-1]
    assert info["is_success"]
    assert info["score"] == pytest.approx(0.98)


def test_the_reward_blocks_run() -> None:
    import gymnasium as gym

    wanted = ("text.count", "reward = {", "as_trl")
    rewards = [block for block in BLOCKS if any(part in block for part in wanted)]
    assert len(rewards) == 5
    for block in rewards:
        exec(block, {"gym": gym})


def test_the_map_names_what_is_there() -> None:
    listing = re.search(r"## Map\n\n```\n(.*?)```", README, re.DOTALL)
    assert listing is not None
    folder = ""
    for line in listing[1].splitlines():
        if not line.startswith(" "):
            folder = line.split()[0]
            assert (ROOT / folder).is_dir(), line
        else:
            assert (ROOT / folder / line.split()[0]).exists(), line


def test_the_recipe_is_the_one_that_was_measured() -> None:
    source = (ROOT / "benchmarks" / "smollm2.py").read_text(encoding="utf-8")
    command = re.search(r'^COMMAND = """.*?"""', source, re.DOTALL | re.MULTILINE)
    assert command is not None
    names: dict[str, str] = {}
    exec(command[0], names)
    results = (ROOT / "benchmarks" / "results" / "smollm2.md").read_text(encoding="utf-8")
    assert names["COMMAND"] in README
    assert names["COMMAND"] in results


def test_every_task_is_in_the_table() -> None:
    from textgym import tasks

    table = README[README.index("| task | prompt") : README.index("What is trained on, chosen")]
    first = [line.partition("|")[2].partition("|")[0] for line in table.splitlines()]
    assert set(re.findall(r"`(\w+)`", " ".join(first))) == set(tasks.names())


def test_every_reward_is_in_the_table() -> None:
    from textgym import rewards

    table = README[README.index("## Rewards") : README.index("`textgym list rewards` shows")]
    assert set(re.findall(r"`(\w+)`", table)) == set(rewards.names())
