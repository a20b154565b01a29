"""Optional dependencies and what is said when one is missing."""

import pickle
import sys

import pytest

from textgym.extras import MissingExtra, require
from textgym.shell import pip_install


def test_a_module_that_is_there():
    assert require("json.decoder", extra="x", wanted_by="reward 'y'").JSONDecoder


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_a_missing_package_comes_with_its_pip_line(module):
    with pytest.raises(MissingExtra) as caught:
        require(module, extra="metrics", wanted_by="reward 'bleu'")
    assert str(caught.value) == (
        "reward 'bleu' needs no_such_package, which is not installed: "
        + pip_install("'textgym[metrics]'")
    )
    assert caught.value.name == "no_such_package"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_what_an_installed_package_lacks_is_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import something_else_entirely\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_else_entirely") as caught:
        require("half_installed", extra="x", wanted_by="reward 'y'")
    assert not isinstance(caught.value, MissingExtra)
    sys.modules.pop("half_installed", None)
