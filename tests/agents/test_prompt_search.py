import json
from io import StringIO

import pytest
from rich.console import Console

from agents.prompt_search import PromptsConfig, search_prompts, templates_table
from textgym.bandits import Uniform
from textgym.templates import Template


def printed(config):
    out = StringIO()
    bandit = search_prompts(config, Console(file=out, width=100))
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
    assert sum(arm.count for arm in found.arms) >= 90
    assert min(arm.count for arm in found.arms) > 0
    assert "h{prompt}" in text
    record = json.loads(output.read_text())
    assert [entry["template"] for entry in record["templates"]] == [
        "{prompt}",
        "h{prompt}",
        "{prompt}j",
    ]
    assert record["best"] == found.best
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


def test_what_is_refused(make_config, tmp_path):
    one = tmp_path / "one.txt"
    one.write_text("{prompt}\n")
    with pytest.raises(ValueError, match="there is one template to choose from"):
        printed(make_config(templates=one))
    with pytest.raises(ValueError, match="there are no templates to choose from"):
        printed(make_config(templates=None))
    with pytest.raises(ValueError, match="texts must be above 0, got 0"):
        make_config(texts=0)


def test_the_table_says_which_won():
    bandit = Uniform(2)
    templates = [Template("{prompt}"), Template("Question: {prompt}\nAnswer:")]

    def shown():
        out = StringIO()
        Console(file=out, width=90).print(templates_table(bandit, templates))
        return " ".join(out.getvalue().split())

    assert "Too few texts" in shown()
    for value in range(40):
        bandit.update(0, value % 3)
        bandit.update(1, value % 3 + 2)
    assert "Template 1 won: +2.000 (95%: " in shown()
    assert r"Question: {prompt}\nAnswer:" in shown()
    for _ in range(40):
        bandit.update(0, 4)
    assert "may be chance" in shown() or "won" in shown()
