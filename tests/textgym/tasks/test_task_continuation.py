import re
from itertools import combinations

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from textgym.tasks import make
from textgym.tokenizer import BUILTIN, Tokenizer

TASK = make("continuation")
OPENINGS = [example.prompt for example in TASK.examples]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def test_the_splits_have_their_sizes():
    assert {split: len(examples) for split, examples in TASK.splits.items()} == {
        "train": 320,
        "validation": 80,
        "test": 80,
    }
    assert all(not example.columns and example.reference is None for example in TASK.examples)


def test_openings_are_short_and_written_cleanly():
    for opening in OPENINGS:
        assert 3 <= len(opening.split()) <= 9, opening
        assert opening == " ".join(opening.split()), opening
        assert opening.isascii(), opening
        assert opening.lstrip("'")[0].isupper(), opening
        assert opening[-1] not in ".!?", opening


def test_no_two_openings_begin_alike():
    assert len({tuple(words(opening)[:4]) for opening in OPENINGS}) == len(OPENINGS)
    for one, other in combinations(map(words, OPENINGS), 2):
        shorter = min(len(one), len(other))
        assert one[:shorter] != other[:shorter], (one, other)


def test_openings_are_neutral_by_themselves():
    analyzer = SentimentIntensityAnalyzer()
    compounds = {text: analyzer.polarity_scores(text)["compound"] for text in OPENINGS}
    assert {text: c for text, c in compounds.items() if c != 0} == {}


def test_openings_are_few_tokens_of_the_builtin_tokenizer():
    tokenizer = Tokenizer.from_pretrained(BUILTIN)
    lengths = {text: len(tokenizer.encode(text)) for text in OPENINGS}
    assert {text: n for text, n in lengths.items() if n > 16} == {}
