"""Files of weights: safetensors, and PyTorch's own where PyTorch is installed.

No file can run code here: PyTorch's are pickles, and are read with its `weights_only` unpickler.
"""

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes  # comes with JAX; without it NumPy has no bfloat16
import numpy as np
import safetensors
import safetensors.numpy

from resnet_jax.errors import InputError
from resnet_jax.runs import write_text

TORCH_SUFFIXES = (".pth", ".th", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """What a file holds: tensors as NumPy arrays, and in a PyTorch file perhaps other things.

    PyTorch's floating-point tensors, and bfloat16 ones, become float32.

    Raises:
      InputError: there is no such file, it cannot be read, or PyTorch is needed and missing.
    """
    path = Path(path)
    check_suffix(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix in TORCH_SUFFIXES:
        return _read_torch(path)
    try:
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    except (AttributeError, KeyError, TypeError) as error:  # so it fails on types NumPy lacks
        raise InputError(
            f"{path}: has tensors of a type that NumPy lacks ({error}); save them as float32"
        ) from error
    return {
        name: tensor.astype(np.float32) if tensor.dtype == ml_dtypes.bfloat16 else tensor
        for name, tensor in tensors.items()
    }


def write(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors by name; an older file of that name is replaced in one instant.

    Raises:
      InputError: the suffix is of no known kind, the folder cannot be written, or PyTorch is
        needed and missing.
    """
    path = Path(path)
    check_suffix(path)
    if path.suffix in TORCH_SUFFIXES:
        content = _torch_bytes(path, tensors)
    else:  # Readers of PyTorch models look for this entry.
        content = safetensors.numpy.save(dict(tensors), metadata={"format": "pt"})
    write_bytes(path, content)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; raises `InputError` if it cannot be written."""
    try:
        write_text(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def check_suffix(path: Path, known: Sequence[str] = SUFFIXES) -> None:
    """Raises `InputError` if the name says no known kind of file."""
    if path.suffix not in known:
        raise InputError(f"{path}: unknown kind of file; known are {', '.join(known)}")


def _torch_bytes(path: Path, tensors: Mapping[str, np.ndarray]) -> bytes:
    torch = _torch(path)
    content = io.BytesIO()
    torch.save({name: torch.tensor(value) for name, value in tensors.items()}, content)
    return content.getvalue()


def _torch(path: Path) -> ModuleType:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: {path.suffix} files need PyTorch, which is not installed: pip install torch, "
            "or use a .safetensors file"
        ) from error
    return torch


def _read_torch(path: Path) -> dict[str, Any]:
    torch = _torch(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns of what it then raises.
            content = torch.load(path, map_location="cpu", weights_only=True)
    # Bytes that are no pickle can make an unpickler raise anything at all.
    except Exception as error:
        raise InputError(
            f"{path}: refused by torch.load(weights_only=True): it is damaged, or holds code "
            f"and not only tensors ({type(error).__name__})"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not tensors by name")
    return _as_numpy(content, torch)


def _as_numpy(value: Any, torch: ModuleType) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_numpy(item, torch) for name, item in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.float() if value.is_floating_point() else value
        return value.detach().numpy()
    return value
