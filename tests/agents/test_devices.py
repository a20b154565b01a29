"""A device that is asked for is used, or refused: never another one."""

import pytest
import torch

from agents.cli import main
from agents.devices import known_device


def test_a_device_that_is_here():
    assert known_device("cpu") == torch.device("cpu")
    assert torch.ones(1, device=known_device("auto")).item() == 1


@pytest.mark.parametrize("name", ["foo", "", "cuda:99", "meta", "hpu", "cuda:-1"])
def test_a_device_that_is_not(name):
    cure = r"\w'?\. Give auto, cpu, or a GPU that torch can use\.$"
    with pytest.raises(ValueError, match=rf"^device '{name}' cannot be used here: .*{cure}"):
        known_device(name)


@pytest.mark.parametrize("command", ["eval", "sample", "prompts"])
def test_no_command_takes_another_device(command, capsys):
    assert main([command, "--device", "cuda:99"]) == 1
    told = capsys.readouterr()
    assert f"textgym {command}: device 'cuda:99' cannot be used here" in told.err
    assert told.out == ""


def test_each_process_begins_with_a_gpu_of_its_own(monkeypatch):
    taken: list[int] = []
    monkeypatch.setattr("agents.devices.own_gpu", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch, "zeros", lambda size, device: torch.ones(size))
    for name in ("cuda", "cuda:1", "cpu"):
        known_device(name)
    assert taken == [3]
