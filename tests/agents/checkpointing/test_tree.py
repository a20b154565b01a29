import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents import weights
from agents.checkpointing.tree import DATA, TENSORS, load_tree, save_tree

KEYS = st.text(max_size=4) | st.integers() | st.booleans()
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9)
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one: object, other: object) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        assert isinstance(other, dict)
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        assert isinstance(other, (list, tuple))
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        assert isinstance(other, float)
        return one.hex() == other.hex() or (math.isnan(one) and math.isnan(other))
    return one == other


@given(tree=st.dictionaries(KEYS, TREES, max_size=4))
def test_plain_data_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: dict) -> None:
    directory = tmp_path_factory.mktemp("tree")
    save_tree(tree, directory)
    assert same(load_tree(directory), tree)


def test_numbers_keep_their_types(tmp_path: Path) -> None:
    tied = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    tree = {
        "float32": np.float32(0.1),
        "array": np.arange(4, dtype=np.int32)[::2],
        "bool": np.array([True, False]),
        "tensors": {0: tied, 1: tied.T},
        "scalar": torch.tensor(3.0),
        "empty": np.zeros((0, 3), np.float32),
    }
    save_tree(tree, tmp_path)
    loaded = load_tree(tmp_path)
    assert loaded["float32"].dtype == np.float32
    assert loaded["float32"] == np.float32(0.1)
    for name in ("array", "bool", "empty"):
        assert loaded[name].dtype == tree[name].dtype
        np.testing.assert_array_equal(loaded[name], tree[name])
    for key, tensor in tree["tensors"].items():
        assert loaded["tensors"][key].dtype == torch.bfloat16
        assert torch.equal(loaded["tensors"][key], tensor)
    assert loaded["scalar"].shape == ()


def test_no_file_can_run_code(tmp_path: Path) -> None:
    save_tree({"weights": torch.zeros(3)}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [DATA, TENSORS]
    strict = json.loads((tmp_path / DATA).read_text(), parse_constant=pytest.fail)
    assert strict == {"weights": {"$tensor": "0"}}


def test_what_is_large_is_written_from_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, save = {}, weights.save_file
    monkeypatch.setattr(
        weights, "save_file", lambda tensors, *rest: given.update(tensors) or save(tensors, *rest)
    )
    tensor, array = torch.randn(4, 5), np.arange(6.0)
    save_tree({"tensor": tensor, "array": array, "again": tensor, "part": tensor[1:]}, tmp_path)
    places = [each.data_ptr() for each in given.values()]
    assert places[:2] == [tensor.data_ptr(), array.ctypes.data]
    assert len(set(places)) == 4  # the format knows no memory that is shared
    loaded = load_tree(tmp_path)
    assert torch.equal(loaded["again"], tensor)
    assert torch.equal(loaded["part"], tensor[1:])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"'a\.b\.1' is a object"):
        save_tree({"a": {"b": [1, object()]}}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_names_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    save_tree({"a.b": torch.ones(2), "a": {"b": torch.zeros(3)}}, tmp_path)
    loaded = load_tree(tmp_path)
    assert loaded["a.b"].tolist() == [1, 1]
    assert loaded["a"]["b"].tolist() == [0, 0, 0]


def test_arrays_that_torch_does_not_take_are_copied_or_named(tmp_path: Path) -> None:
    fixed = np.arange(3)
    fixed.flags.writeable = False
    save_tree({"reversed": np.arange(3)[::-1], "fixed": fixed}, tmp_path)
    assert load_tree(tmp_path)["reversed"].tolist() == [2, 1, 0]
    with pytest.raises(TypeError, match="'objects' is a ndarray"):
        save_tree({"objects": np.array([None, 1])}, tmp_path)


@pytest.mark.parametrize("data", ["[1]", '{"a": {"$numpy": ["u1", 300]}}', "[" * 10**5])
def test_what_is_no_tree_is_said_to_be_none(tmp_path: Path, data: str) -> None:
    save_tree({}, tmp_path)
    (tmp_path / DATA).write_text(data)
    with pytest.raises(ValueError, match="cannot be read"):
        load_tree(tmp_path)


@pytest.mark.parametrize("name", [DATA, TENSORS])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, name: str) -> None:
    save_tree({"weights": torch.zeros(30)}, tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-7])
    with pytest.raises(ValueError, match="cannot be read"):
        load_tree(tmp_path)
