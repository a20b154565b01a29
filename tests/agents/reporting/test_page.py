"""The page as it is written: what is in it, and that nothing can get out of its place."""

import json
import re
from html.parser import HTMLParser

import pytest

from agents.reporting.page import page
from agents.reporting.run import load_run, load_runs

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&amp; \u2028"


class Elements(HTMLParser):
    """The tags of a page and what is in its data element."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.data = ""
        self._in_data = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in_data = tag == "script" and dict(attrs).get("id") == "data"

    def handle_data(self, data):
        if self._in_data:
            self.data += data

    def handle_endtag(self, tag):
        self._in_data = False


def test_nothing_that_was_written_becomes_a_part_of_the_page(make_run, make_text):
    texts = [make_text([NASTY], prompt=NASTY, context=NASTY + "!", replies=[[1, NASTY]])]
    html = page([load_run(make_run(texts=(texts, texts), task=NASTY, model=NASTY), NASTY)])
    elements = Elements(html)
    scripts = [attributes for tag, attributes in elements.tags if tag == "script"]
    assert len(scripts) == 4  # the data, plotly and two of ours
    assert not [tag for tag, _ in elements.tags if tag == "img"]
    [found] = json.loads(elements.data)["sets"]
    shown = NASTY.replace("\u2028", "\\u2028")  # which is not printable
    assert found["prompts"][0]["prompt"] == shown
    assert found["prompts"][0]["texts"][0]["tokens"] == [shown]


def test_the_page_names_no_other_file(make_run):
    elements = Elements(page([load_run(make_run())]))
    for _, attributes in elements.tags:
        assert not attributes.keys() & {"src", "srcset", "action"}
        assert attributes.get("href", "#").startswith("#")
    policies = [a["content"] for t, a in elements.tags if a.get("http-equiv")]
    assert re.match(r"default-src 'none'; script-src ('sha256-[\w+/=]{44}' ?){3};", policies[0])


def test_it_says_what_was_reached_and_chosen_and_how_to_repeat_it(make_run, make_text):
    before = [make_text([" a"], score) for score in (0.0, 0.5)]
    after = [make_text([" b"], score) for score in (1.0, 1.0)]
    path = make_run(texts=(before, after))
    html = page([load_run(path)])
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html[: html.index('id="data"')]))
    assert "before training +0.250 −2.927 to +3.427" in text  # noqa: RUF001
    assert "after training +1.000" in text
    assert "gained +0.750" in text
    chosen, rest = text.split("All others, as they are by default")
    assert "total_timesteps 300" in chosen
    assert "learning_rate 0.0001 (the algorithm&#39;s)" in rest
    assert f"textgym train --config {path}/config.yaml" in rest


def test_a_curve_of_two_seeds_has_a_band(make_run):
    other = [
        "time/total_timesteps,rollout/ep_rew_mean",
        "100,0.3",
        "200,0.5",
        "300,0.7",
    ]
    paths = [make_run("a", seed=0), make_run("b", seed=1, progress=other)]
    data = json.loads(Elements(page(load_runs(paths))).data)
    [score] = [chart for chart in data["charts"] if chart["id"] == "chart-rollout-ep_rew_mean"]
    [found] = score["curves"]
    assert found["mean"] == pytest.approx([0.2, 0.4, 0.6])
    assert (found["low"], found["high"]) == ([0.1, 0.3, 0.5], [0.3, 0.5, 0.7])
    [tested] = [chart["marks"] for chart in data["charts"] if chart["marks"]]
    assert tested == [{"group": 0, "x": [0, 300], "y": [0.25, 0.75]}]


def test_settings_that_differ_come_first_with_a_column_a_run(make_run):
    paths = [make_run("a", timing="immediate"), make_run("b", timing="delayed")]
    html = page(load_runs(paths))
    row = html.index("<code>timing</code>")
    assert row < html.index("All others")
    assert "<td>immediate</td><td>delayed</td>" in html[row : row + 200]
    assert json.loads(Elements(html).data)["groups"] == ["timing immediate", "timing delayed"]


def test_settings_that_make_no_group_are_told_where_they_differ(make_run):
    paths = [make_run("a", device="cpu"), make_run("b", seed=1, device="cuda")]
    html = page(load_runs(paths))
    assert len(json.loads(Elements(html).data)["groups"]) == 1
    rest = html.index("All others")
    for name, values in (("device", "<td>cpu</td><td>cuda</td>"), ("seed", "<td>0</td><td>1</td>")):
        row = html.index(f"<code>{name}</code>")
        assert row < rest
        assert values in html[row : row + 200]


def test_the_reward_is_called_as_in_the_terminal(make_run):
    html = page([load_run(make_run(reward={"sentiment": 1.0, "length": 0.1}))])
    assert "immediate <strong>sentiment + 0.1 length</strong> reward" in html


@pytest.mark.parametrize("command", ["train", "sft"])
def test_a_run_that_was_stopped_says_how_to_go_on(make_run, command):
    path = make_run("a run", command=command)
    go_on = f"textgym {command} --resume &#39;{path}&#39;"
    assert go_on not in page([load_run(path)])
    (path / "result.json").unlink()
    html = page([load_run(path)])
    assert html.index("Repeat it</h2>") < html.index(go_on)
    assert f"textgym {command} --config &#39;{path}&#39;/config.yaml" in html


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({"task": "dialogue", "corpus": []}, "SFT on dialogue"),
        ({"task": None, "corpus": ["texts/a.txt", "b"]}, "SFT on a.txt, b"),
    ],
)
def test_a_run_of_supervised_learning(make_run, settings, title):
    path = make_run(command="sft", **settings)
    (path / "texts.json").unlink()
    (path / "result.json").write_text('{"loss_before": 2.5, "loss_after": 1.25}')
    html = page([load_run(path)])
    assert f"<h1>{title}</h1>" in html
    assert "<dt>before training</dt><dd>2.500</dd>" in html
    assert "<dt>after training</dt><dd>1.250</dd>" in html


def test_without_a_log_there_is_no_plotly(make_run):
    path = make_run()
    whole = len(page([load_run(path)]))
    (path / "progress.csv").unlink()
    html = page([load_run(path)])
    assert whole - len(html) > 4_000_000
    assert "Nothing was logged" in html
