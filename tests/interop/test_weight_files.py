"""Files of weights are read as they were written, never run code, and fail in one line."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.errors import InputError
from resnet_jax.interop import weight_files

TENSORS = {
    "conv1.weight": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32),
    "bn1.num_batches_tracked": np.array(5, np.int64),
}
suffixes = pytest.mark.parametrize(
    "suffix", [".safetensors", *(pytest.param(s, marks=pytest.mark.torch) for s in (".pth", ".pt"))]
)


def need_torch(suffix=".pth"):
    return pytest.importorskip("torch") if suffix in weight_files.TORCH_SUFFIXES else None


@suffixes
def test_tensors_are_read_as_written(suffix, tmp_path):
    need_torch(suffix)
    path = tmp_path / "new" / f"net{suffix}"
    weight_files.write(path, TENSORS)
    read = weight_files.read(path)
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        np.testing.assert_array_equal(read[name], tensor)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_safetensors_file_says_that_it_is_a_pytorch_model(tmp_path):
    weight_files.write(tmp_path / "net.safetensors", TENSORS)
    raw = (tmp_path / "net.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"] == {"format": "pt"}


@suffixes
@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_damaged_file_is_one_line(suffix, keep, tmp_path):
    need_torch(suffix)
    path = tmp_path / f"net{suffix}"
    weight_files.write(path, TENSORS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"net\{suffix}: ") as raised:
        weight_files.read(path)
    assert "\n" not in str(raised.value)


@suffixes
def test_file_of_something_else_is_one_line(suffix, tmp_path):
    need_torch(suffix)
    path = tmp_path / f"net{suffix}"
    path.write_text("<html>404: not found</html>")
    with pytest.raises(InputError, match=rf"net\{suffix}: "):
        weight_files.read(path)


def write_by_hand(path: Path, kind: str, content: bytes) -> Path:
    """A safetensors file of one tensor "a", [3], of a type that NumPy alone does not have."""
    header = json.dumps({"a": {"dtype": kind, "shape": [3], "data_offsets": [0, len(content)]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + content)
    return path


def test_bfloat16_is_read_as_float32(tmp_path):
    path = write_by_hand(tmp_path / "net.safetensors", "BF16", bytes([0x80, 0x3F] * 3))
    tensor = weight_files.read(path)["a"]
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor, 1)


def test_type_that_numpy_lacks_is_one_line(tmp_path):
    path = write_by_hand(tmp_path / "net.safetensors", "F8_E4M3", bytes(3))
    with pytest.raises(InputError, match="type that NumPy lacks"):
        weight_files.read(path)


class Trap:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_code_in_a_pytorch_file_is_refused_and_not_run(kind, tmp_path):
    torch = need_torch()
    path, touched = tmp_path / "net.pth", tmp_path / "touched"
    trap = {"conv1.weight": Trap(touched)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(InputError, match="holds code"):
        weight_files.read(path)
    assert not touched.exists()


@pytest.mark.torch
def test_whole_checkpoint_keeps_its_nesting(tmp_path):
    torch = need_torch()
    weights = {"a": torch.nn.Parameter(torch.ones(2)), "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "net.th")
    read = weight_files.read(tmp_path / "net.th")
    assert read["epoch"] == 3
    for tensor in read["state_dict"].values():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, 1)


@pytest.mark.torch
def test_file_of_no_dictionary_is_refused(tmp_path):
    torch = need_torch()
    torch.save([1, 2], tmp_path / "net.pt")
    with pytest.raises(InputError, match="holds a list"):
        weight_files.read(tmp_path / "net.pt")


def test_pytorch_is_asked_for_by_name_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "net.pth").touch()
    for action in (lambda path: weight_files.read(path), lambda p: weight_files.write(p, TENSORS)):
        with pytest.raises(InputError, match="pip install torch"):
            action(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["net.bin", "net", "net.onnx"])
def test_unknown_kind_of_file_is_refused(name, tmp_path):
    (tmp_path / name).touch()
    for action in (lambda path: weight_files.read(path), lambda p: weight_files.write(p, TENSORS)):
        with pytest.raises(InputError, match=r"known are \.safetensors, \.pth"):
            action(tmp_path / name)


def test_missing_file_and_unwritable_folder_are_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        weight_files.read(tmp_path / "net.safetensors")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        weight_files.write(tmp_path / "file" / "net.safetensors", TENSORS)
