import json
from collections import Counter
from io import StringIO

import pytest
from rich.console import Console

from agents.config import RunConfig
from agents.prompt_search import PromptsConfig, search_prompts, templates_table, verdict
from agents.run_file import save_config
from textgym.bandits import Uniform
from textgym.templates import Template


def printed(config, width=100):
    out = StringIO()
    bandit = search_prompts(config, Console(file=out, width=width))
    return bandit, out.getvalue()


@pytest.fixture
def make_config(make_llama, tiny_tokenizer_dir, tmp_path):
    """A random model of the letters a to j; a text is worth what its template adds."""
    from textgym.tokenizer import Tokenizer

    directory = tmp_path / "model"
    make_llama(vocab_size=11).save_pretrained(directory)
    Tokenizer.from_pretrained(tiny_tokenizer_dir).save_pretrained(directory)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("ab\ncd\nef\ngh\n")
    templates = tmp_path / "templates.txt"
    templates.write_text("{prompt}\nh{prompt}\n{prompt}j\n")

    def make(**settings):
        return PromptsConfig(
            **{
                "model": str(directory),
                "task": {"name": "file", "path": str(prompts)},
                "templates": templates,
                "reward": "length",
                "texts": 90,
                "max_new_tokens": 4,
                "n_envs": 8,
                "device": "cpu",
                **settings,
            }
        )

    return make


@pytest.mark.parametrize("bandit", ["thompson", "ucb", "uniform"])
def test_every_template_is_tried_and_shown(make_config, tmp_path, bandit):
    output = tmp_path / "found.json"
    found, text = printed(make_config(bandit=bandit, output=output))
    assert sum(arm.count for arm in found.arms) == 90
    assert min(arm.count for arm in found.arms) > 0
    assert "h{prompt}" in text
    record = json.loads(output.read_text())
    assert [entry["template"] for entry in record["templates"]] == [
        "{prompt}",
        "h{prompt}",
        "{prompt}j",
    ]
    assert {entry["confidence"] for entry in record["templates"]} == {0.95}
    assert record["best"] == found.best
    confidence = 0.95 if bandit == "uniform" else 0.99
    winner = found.winner(confidence)
    assert record["winner"]["confidence"] == confidence
    assert [record["winner"][end] for end in ("low", "high")] == [winner.low, winner.high]
    assert f"({confidence:.0%}: {winner.low:+.3f} to {winner.high:+.3f})" in text
    assert "Prompts are plain text." in text
    assert found.discount == 1.0


def test_the_same_seed_finds_the_same(make_config):
    assert printed(make_config())[1] == printed(make_config())[1]
    assert printed(make_config(seed=1))[1] != printed(make_config())[1]


def test_a_planted_better_template_is_found(make_config):
    """The model likes to repeat the last token, as its head is its embedding; j is wanted."""
    settings = {
        "texts": 400,
        "max_new_tokens": 8,
        "reward": lambda text: float(text.count("j")),
        "temperature": 0.05,
    }
    fair, text = printed(make_config(bandit="uniform", **settings))
    assert fair.best == 2
    assert fair.winner().is_significant
    assert "Template 2 won" in text
    for bandit in ("thompson", "ucb"):
        found, _ = printed(make_config(bandit=bandit, **settings))
        assert found.best == 2
        assert found.arms[2].count > 300


@pytest.mark.parametrize("texts", [3, 20, 41])
def test_texts_that_are_begun_are_those_that_count(make_config, monkeypatch, texts):
    """Those of the last template end with their first token, and the others seldom soon."""
    chosen = []

    def choose(self, generator):
        chosen.append(0)
        chosen[-1] = uniform(self, generator)
        return chosen[-1]

    uniform = Uniform.choose
    monkeypatch.setattr(Uniform, "choose", choose)
    settings = {"bandit": "uniform", "stop": ("j",), "temperature": 0.05, "max_new_tokens": 16}
    worth = {"reward": lambda text: float(len(text)), "texts": texts}
    found, _ = printed(make_config(**settings, **worth))
    counts = Counter(chosen[:texts])
    assert [arm.count for arm in found.arms] == [counts[arm] for arm in range(3)]
    if texts == 41:
        assert found.arms[2].mean < 3  # short indeed
        assert min(found.arms[0].mean, found.arms[1].mean) > 6


def test_a_run_stands_for_its_model(make_config, tmp_path):
    config = make_config()
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "model").rename(run / "model")
    save_config(RunConfig(), run / "config.yaml")
    of_run = printed(make_config(model=str(run)))
    assert of_run[1] == printed(make_config(model=str(run / "model")))[1]
    assert of_run[1] == printed(make_config(model=str(run / "model"), tokenizer=str(run)))[1]
    with pytest.raises(FileNotFoundError):
        printed(config)


def test_long_prompts(make_config):
    with pytest.raises(ValueError, match="prompt_truncation='left'"):
        printed(make_config(context_length=6))
    cut, _ = printed(make_config(context_length=6, prompt_truncation="left"))
    assert sum(arm.count for arm in cut.arms) == 90


@pytest.mark.parametrize("only", [{"top_k": 1}, {"top_p": 1e-6}])
def test_filters_leave_only_the_likeliest(make_config, tmp_path, only):
    (tmp_path / "prompts.txt").write_text("ab\n")

    def spread(**settings):
        reward = {"reward": lambda text: float(len(set(text))), "temperature": 3.0}
        found, _ = printed(make_config(bandit="uniform", **reward, **settings))
        return [arm.squares for arm in found.arms]

    assert spread(**only) == [0, 0, 0]
    assert min(spread()) > 0
    with pytest.raises(ValueError, match="top_"):
        make_config(**{name: -1 for name in only})


def test_the_verdict_is_one_line(make_config):
    lines = printed(make_config(), width=40)[1].splitlines()
    assert lines[-1].startswith("Template ")
    assert lines[-1].endswith((", the next.", "over template 0.", "over template 1."))
    assert len(lines[-1]) > 60


def test_what_is_refused(make_config, tmp_path):
    one = tmp_path / "one.txt"
    one.write_text("{prompt}\n")
    with pytest.raises(ValueError, match="there is one template to choose from"):
        printed(make_config(templates=one))
    with pytest.raises(ValueError, match="there are no templates to choose from"):
        printed(make_config(templates=None))
    with pytest.raises(ValueError, match="texts must be above 0, got 0"):
        make_config(texts=0)


def test_table_and_verdict_say_which_won():
    bandit = Uniform(2)
    templates = [Template("{prompt}"), Template("Question: {prompt}\nAnswer:")]

    def shown():
        out = StringIO()
        Console(file=out, width=90).print(templates_table(bandit, templates))
        return out.getvalue()

    assert "too few" in shown()
    assert "Too few texts" in verdict(bandit)
    for value in range(40):
        bandit.update(0, value % 3)
        bandit.update(1, value % 3 + 2)
    assert verdict(bandit).startswith("Template 1 won: +2.000 (95%: ")
    assert r"Question: {prompt}\nAnswer:" in shown()
    for _ in range(40):
        bandit.update(0, 4)
    assert "may be chance" in verdict(bandit)
