"""Whatever a user types or a file holds: a value, or one line that says what is wrong."""

import gzip
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from array_record.python import array_record_data_source, array_record_module
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from configs import digits
from resnet_jax.data import image_ops, raw_readers, tfds_sets
from resnet_jax.data.image_ops import UnreadableImage
from resnet_jax.errors import InputError
from resnet_jax.interop import weight_files
from resnet_jax.reporting import findings, load, tables
from resnet_jax.runs import Recipe, arguments, load_recipe, read_run

settings.register_profile(
    "any",
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    max_examples=int(os.environ.get("MAX_EXAMPLES", 50)),
)
settings.load_profile("any")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
    max_leaves=6,
)


def check_line(error: Exception, *words: object) -> None:
    text = str(error)
    assert text
    assert "\n" not in text.strip()
    assert all(str(word) in text for word in words)


def kept_bytes(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file with some bytes changed, or cut off."""
    edits = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6)

    def edited(changes: list[tuple[int, int]], length: int) -> bytes:
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        return bytes(content[:length])

    return st.builds(edited, edits, st.integers(0, len(whole)) | st.just(len(whole)))


@given(st.text(max_size=60))
@example("{[]: 1}")
@example("[" * 500 + "]" * 500)
@example("9" * 5000)
@example("\x00")
def test_any_text_is_some_value(text: str):
    assert type(arguments.parse_value(text)).__module__ == "builtins"


@given(
    st.text(max_size=20),
    st.sampled_from(["seed", "num_steps", "schedule.boundaries", "model.width", "dataset.name"]),
    st.text(max_size=20) | st.integers().map(str) | st.floats().map(str),
)
@example("resnet-8", "dataset.data_dir", "~nobody-at-all/x")
def test_any_config_argument_is_a_recipe_or_one_line(name: str, field: str, value: str):
    for argument in (f"resnet-8,{field}={value}", f"{name},{field}={value}", name):
        try:
            assert isinstance(Recipe.from_config(digits.get_config(argument)), Recipe)
        except InputError as error:
            check_line(error)


WHOLE = {
    "config.json": {"format": 1, "config": digits.get_config("resnet-8").to_dict()},
    "summary.json": {"format": 1, "status": "completed", "train_error": 0.1, "test_error": 0.2},
    "metrics.jsonl": {"step": 1, "split": "train", "loss": 1.0, "error": 0.5, "seconds": 1.0},
}


@given(
    st.sampled_from(list(WHOLE)),
    st.binary(max_size=40)
    | JSON.map(json.dumps).map(str.encode)
    | st.sampled_from(list(WHOLE)).flatmap(
        lambda name: kept_bytes(json.dumps(WHOLE[name], default=str).encode())
    ),
)
@example("metrics.jsonl", b"[" * 2000)
@example("config.json", b"[" * 2000)
def test_any_bytes_in_a_runs_folder_are_reported(damaged: str, content: bytes):
    assert report_on(damaged, content) == ["run"]


def report_on(damaged: str, content: bytes) -> list[str]:
    """The names of the runs that a report finds where one file of a run holds `content`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        folder.mkdir()
        for name, whole in WHOLE.items():
            (folder / name).write_text(json.dumps(whole, default=str))
        (folder / damaged).write_bytes(content)
        read_run(folder)
        collected = load.collect([folder])
        findings.find(collected)
        tables.runs_table(collected.results)
        try:
            load_recipe(folder)
        except InputError as error:
            check_line(error)
        return [result.name for result in collected.results]


@given(st.sampled_from(list(WHOLE)), st.data())
def test_any_value_of_a_field_is_reported(damaged: str, data: st.DataObject):
    field = data.draw(st.sampled_from(list(WHOLE[damaged])))
    value = data.draw(JSON)
    content = json.dumps({**WHOLE[damaged], field: value}, default=str).encode()
    assert report_on(damaged, content) == ["run"]


SAFETENSORS = safetensors.numpy.save({"conv1.weight": np.ones((2, 3), np.float32)})


@given(st.binary(max_size=60) | kept_bytes(SAFETENSORS), st.sampled_from(weight_files.SUFFIXES))
def test_any_bytes_are_weights_or_one_line(content: bytes, suffix: str):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"weights{suffix}"
        path.write_bytes(content)
        try:
            found: dict[str, Any] = weight_files.read(path)
            assert all(isinstance(name, str) for name in found)
        except InputError as error:
            check_line(error, path)


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    pixels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


IMAGES = {kind: encoded(kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")}


@given(
    st.sampled_from(list(IMAGES)).flatmap(lambda kind: kept_bytes(IMAGES[kind]))
    | st.binary(max_size=60)
)
def test_any_bytes_are_an_image_or_said_to_be_none(content: bytes):
    for upright in (False, True):
        try:
            pixels = image_ops.decode(content, upright=upright)
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
        except UnreadableImage as error:
            check_line(error)


IDX = bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7])


@given(
    kept_bytes(IDX) | kept_bytes(gzip.compress(IDX)) | st.binary(max_size=40),
    st.sampled_from([1, 3]),
)
def test_any_bytes_are_an_idx_file_or_one_line(content: bytes, num_dims: int):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.gz"
        path.write_bytes(content)
        try:
            assert raw_readers._read_idx(path, num_dims).ndim == num_dims
        except InputError as error:
            check_line(error, path)


def example_record(image: list[bytes], label: list[int]) -> bytes:
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.extend(image)
    example.features.feature["label"].int64_list.value.extend(label)
    return example.SerializeToString()


RECORD = example_record([IMAGES["PNG"]], [1])


@given(
    kept_bytes(RECORD)
    | st.binary(max_size=60)
    | st.builds(
        example_record,
        st.lists(st.sampled_from(list(IMAGES.values())) | st.binary(max_size=20), max_size=2),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2),
    )
)
@example(RECORD)
def test_any_bytes_are_a_record_of_a_set_or_one_line(content: bytes):
    records = tfds_sets.Records("toy", "train", [content], ("even", "odd"))
    try:
        found = records[0]
        assert found.label in (0, 1)
        assert isinstance(found.encoded, bytes)
    except InputError as error:
        check_line(error, "toy")


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of twenty records, as TFDS writes them."""
    path = tmp_path_factory.mktemp("shard") / "toy.array_record"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for _ in range(20):
        writer.write(RECORD)
    writer.close()
    return path.read_bytes()


@given(st.data())
def test_any_bytes_in_a_file_of_records_are_read_or_refused(shard: bytes, data: st.DataObject):
    content = data.draw(kept_bytes(shard) | st.binary(max_size=60))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.array_record"
        path.write_bytes(content)
        try:
            tfds_sets.check_shard(path, 20)
            raw = array_record_data_source.ArrayRecordDataSource([str(path)])
            records = tfds_sets.Records("toy", "train", raw, ("even", "odd"))
            assert all(records[index].label == 1 for index in range(20))
        except InputError as error:
            check_line(error)
