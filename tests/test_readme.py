"""What the README and the guides show must run, and what they list must be all there is."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / ".docs" / "pages" / "guides"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted(GUIDES.glob("*.md"))]
}
TEXT = "\n".join(PAGES.values())


def blocks(language: str, text: str = TEXT) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


BLOCKS = blocks("python")
SHORTER = {
    "evaluate_policy": {"n_steps=256": "n_steps=64", "2_048": "64", "episodes=20": "episodes=2"},
    "model.learn(1_024)": {
        '"TextGen-v0", 16': '"TextGen-v0", 2',
        "n_steps=64": "n_steps=8",
        "=256": "=16",
        "1_024": "16",
    },
    "GRPO(": {'"TextGen-v0", 64': '"TextGen-v0", 8', "4_096": "16"},
    "load_checkpoint(": {
        '"TextGen-v0", 16': '"TextGen-v0", 2',
        "n_steps=64": "n_steps=8",
        "=256": "=16",
        "4_096": "32",
    },
    '"gpt2"': {'"gpt2"': '"builtin"', "n_envs=64": "n_envs=2"},  # nothing is downloaded
    "envs = gym.make_vec": {"num_envs=64": "num_envs=4", "(64,)": "(4,)"},
}
"""Less of the same, by what is in a block: the lengths are all that differ from what is shown."""


def shortened(script: str) -> str:
    for mark, shorter in SHORTER.items():
        if mark in script:
            for shown, short in shorter.items():
                assert shown in script
                script = script.replace(shown, short)
    return script


ELSEWHERE = ("class Riddles", "agents.tuning")
"""Marks of scripts that other tests run, with less to do."""


@pytest.mark.parametrize(
    "script", [block for block in BLOCKS if not any(mark in block for mark in ELSEWHERE)]
)
def test_the_scripts_run(
    script: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import gymnasium as gym

    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    names: dict[str, Any] = {"gym": gym}  # which an earlier block of the page has imported
    exec(shortened(script), names)
    if "model.learn(" in script:
        assert names["model"].num_timesteps >= 16
        algorithm = re.search(r"model = (\w+)\(", script)
        assert algorithm is not None
        assert type(names["model"]).__name__ == algorithm[1]
    if "verbose=1" in script:
        assert "ep_rew_mean" in capsys.readouterr().out


def test_the_script_with_checkpoints_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = [block for block in BLOCKS if "load_checkpoint(" in block]
    torch.set_num_threads(1)
    ended = {}
    for run, lengths in {"at once": ["48"], "stopped": ["32", "48"]}.items():
        (tmp_path / run).mkdir()
        monkeypatch.chdir(tmp_path / run)
        for length in lengths:
            names: dict[str, Any] = {}
            exec(shortened(script).replace("32 -", f"{length} -"), names)
            assert names["model"].num_timesteps == int(length)
        ended[run] = names["model"].policy.state_dict()
    assert names["latest"].name == "000000000032"
    for name, weights in ended["at once"].items():
        assert torch.equal(ended["stopped"][name], weights), name


def test_both_ways_of_training_are_shown() -> None:
    for mark in SHORTER:
        assert any(mark in block for block in BLOCKS), mark
    side_by_side = [block for block in BLOCKS if "model.learn(1_024)" in block]
    assert [re.findall(r"model = (\w+)\(", block) for block in side_by_side] == [
        ["PPO"],
        ["TokenPPO"],
    ]


def test_the_tables_have_every_algorithm() -> None:
    from agents.algorithms.by_name import ALGORITHMS

    ours = {name for name, algorithm in ALGORITHMS.items() if not algorithm.is_stock}
    for page in ("README.md", ".docs/pages/guides/algorithms.md"):
        table = PAGES[page].partition("| algorithm |")[2].partition("\n\n")[0]
        assert set(re.findall(r"^\| `(\S+)`", table, re.MULTILINE)) == ours


def test_the_stages_of_a_pipeline_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents.pipeline import read_pipeline

    (text,) = blocks("yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("A text.\n\nAnother.\n")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "reference": "b"}\n')
    (tmp_path / "stages.yaml").write_text(text)
    assert read_pipeline(tmp_path / "stages.yaml")


def test_every_figure_is_filled_in() -> None:
    assert not re.findall(r"@[A-Z0-9]+@|README_", TEXT)


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


COMMANDS = [
    line
    for block in blocks("bash")
    for line in re.sub(r"\\\n|,\n", lambda joint: joint[0].strip("\\\n") + " ", block).splitlines()
    if "textgym " in line
]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_are_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option of a command that is shown exists, and takes the value that it is given."""
    import tyro

    from agents import cli
    from agents.config import RunConfig
    from agents.run_file import save_config
    from agents.tuning.config import TuneConfig

    words = shlex.split(line.rpartition(".venv/bin/textgym ")[2], comments=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "templates.txt").write_text("{prompt}\n")
    for option, place in pairwise(words):
        if option in ("--resume", "--config"):
            file = Path(place, *["config.yaml"] * (option == "--resume"))
            file.parent.mkdir(parents=True, exist_ok=True)
            if words[0] == "tune":
                save_config(TuneConfig(search=("kl_coef=0.01,0.05",)), file, "tune")
            else:
                save_config(RunConfig(), file)
    monkeypatch.setattr(sys, "path", [*sys.path])
    understood = []

    def parse(kind: Callable[..., Any], **options: Any) -> None:
        if isinstance(kind, type):
            understood.append(real(kind, **options))
        else:  # calls what it is about, so that it is enough to bind it
            understood.append(options["args"])
        raise Understood

    real = tyro.cli
    monkeypatch.setattr(tyro, "cli", parse)
    if words[0] == "list":
        cli.list_names(words[1:])
        return
    with pytest.raises(Understood):
        cli.COMMANDS[words[0]](words[1:])
    assert understood


class Understood(Exception):  # noqa: N818  # it is what the test above waits for
    """The command line was read, and nothing has begun."""


def test_the_map_names_what_is_there() -> None:
    listing = re.search(r"```\n(.*?)```", PAGES[".docs/pages/guides/map.md"], re.DOTALL)
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
    assert names["COMMAND"] in PAGES[".docs/pages/guides/model.md"]
    assert names["COMMAND"] in results


def test_every_task_is_in_the_table() -> None:
    from textgym import tasks

    page = PAGES[".docs/pages/guides/data.md"]
    table = page[page.index("| task | prompt") : page.index("What is trained on, chosen")]
    first = [line.partition("|")[2].partition("|")[0] for line in table.splitlines()]
    assert set(re.findall(r"`(\w+)`", " ".join(first))) == set(tasks.names())


def test_every_reward_is_in_the_table() -> None:
    from textgym import rewards

    page = PAGES[".docs/pages/guides/rewards.md"]
    table = page[page.index("| what is paid") : page.index("`textgym list rewards` shows")]
    assert set(re.findall(r"`(\w+)`", table)) == set(rewards.names())


def test_every_guide_is_named_in_the_readme_and_in_the_navigation() -> None:
    navigation = (ROOT / ".docs" / "mkdocs.yml").read_text(encoding="utf-8")
    for path in GUIDES.glob("*.md"):
        assert f"(.docs/pages/guides/{path.name})" in README
        assert f"- guides/{path.name}\n" in navigation


def test_links_to_files_lead_somewhere() -> None:
    """The site's build follows all links; this is about them as GitHub has them."""
    for page, text in PAGES.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", prose):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"
