"""Files that are no models, constants beside a model, and constants too large to evaluate."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cosma import Accelerator, compile
from cosma.errors import ModelLoadError
from cosma.execute import run_plan
from cosma.frontend import load_onnx
from tests.field.conftest import Load, executed, planned

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", "x")
    return buffer.getvalue()


def _safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def _graph_def() -> bytes:
    node = b"\x0a\x05input\x12\x0bPlaceholder"
    return b"\x0a" + bytes([len(node)]) + node


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1c\0\0\0TFL3" + bytes(64), "is a TensorFlow Lite model; convert it with tf2onnx"),
        (b"\x1c\0\0\0ORTM" + bytes(64), "ONNX Runtime's own format"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer.*git lfs pull"),
        (_zip(), r"is a zip archive, as torch.save.*torch\.onnx\.export"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "is an HDF5 file, as Keras writes"),
        (b"GGUF" + bytes(64), "is a GGUF file: weights without a graph"),
        (_safetensors(), "is a safetensors file: weights without a graph"),
        (gzip.compress(b"model", mtime=0), "is a gzip archive; unpack it"),
        (pickle.dumps({"w": 1}), "is a Python pickle"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b'<?xml version="1.0"?><net name="a" version="11">', "is an OpenVINO network"),
        (b'{"nodes": []}', "is JSON"),
        (b'<ir_version: 8, opset_import: ["" : 17]> g () => () {}', "is ONNX's text form"),
        (_graph_def(), r"is a TensorFlow graph \(GraphDef\)"),
        (b"\x08\x01\x12\x20" + b"....serving_default....", "is a TensorFlow SavedModel"),
        (bytes(5000), "starts with zero bytes only"),
        (b"hello, world", "is plain text"),
        (b"", "the file is empty"),
    ],
)
def test_a_file_of_another_format_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=message):
        load_onnx(path)


def test_a_folder_and_a_pipe_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="is a folder"):
        load_onnx(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="folder of a TensorFlow SavedModel"):
        load_onnx(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ModelLoadError, match="is a pipe, not a regular file"):
        load_onnx(tmp_path / "pipe.onnx")


def _external(folder: Path, location: str = "m.data", length: int = 16) -> Path:
    x = helper.make_tensor_value_info("x", 1, [4, 8])
    y = helper.make_tensor_value_info("y", 1, [2, 16])
    shape = TensorProto(name="s", data_type=7, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "8"), ("length", str(length))):
        shape.external_data.add(key=key, value=value)
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("Relu", ["r"], ["y"])],
                              "g", [x], [y], [shape])  # fmt: skip
    graph.output[0].type.tensor_type.ClearField("shape")
    path = folder / "m.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    return path


def test_a_small_constant_beside_the_model_is_read(tmp_path: Path) -> None:
    path = _external(tmp_path)
    with pytest.raises(ModelLoadError, match=r"constant 's', which is not in the file: .*m\.data: no such file"):
        load_onnx(path)
    (tmp_path / "m.data").write_bytes(bytes(8) + np.array([2, 16], np.int64).tobytes())
    assert load_onnx(path).graph.tensors["y"].shape == (2, 16)
    (tmp_path / "m.data").write_bytes(bytes(10))
    with pytest.raises(ModelLoadError, match=r"'s' ends at byte 24 of .*m\.data, which has 10 bytes"):
        load_onnx(path)
    with pytest.raises(ModelLoadError, match="has 16 bytes by its type and shape, and 99"):
        load_onnx(_external(tmp_path, length=99))


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link/secret"])
def test_no_file_outside_the_models_folder_is_read(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(8) + np.array([2, 16], np.int64).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(ModelLoadError, match="outside the model's folder; it is not read"):
        load_onnx(_external(folder, location))


def test_a_constant_too_large_to_evaluate_is_refused_at_once(load: Load) -> None:
    text = """g (float[4] x) => (float[?] y) <int64[2] c = {65536, 12000}> {
      big = ConstantOfShape (c)
      y = Concat <axis = 0> (big, x)
    }"""
    tracemalloc.start()
    begin = time.perf_counter()
    with pytest.raises(ModelLoadError, match="ONNX defines ConstantOfShape from opset 9 on, and the model imports 8"):
        load(HEAD.replace("17", "8") + text)
    text = text.replace("y = Concat <axis = 0> (big, x)", "s = Cast<to = 7>(big)\n y = Reshape (x, s)")
    with pytest.raises(ModelLoadError):
        load(HEAD + text)
    assert time.perf_counter() - begin < 5
    assert tracemalloc.get_traced_memory()[1] < 100_000_000
    tracemalloc.stop()


def test_an_axis_written_as_a_vector_is_evaluated(load: Load) -> None:
    text = HEAD + """g (float[4] x) => (float[?] y) <int64[4] r = {1,2,0,3}, int64[1] ax = {0}, int64[1] last = {-1}> {
      p = CumSum (r, ax)
      q = Gather (p, last)
      z = ConstantOfShape <value = float[1] {0}> (q)
      y = Concat <axis = 0> (x, z)
    }"""
    assert planned(load(text), ["y"]) == {"y": (10,)}
    assert executed(onnx.parser.parse_model(text), {"x": np.ones(4, np.float32)})[0] == {"y": (10,)}


def test_an_operator_that_cannot_be_evaluated_is_named(load: Load) -> None:
    text = HEAD + """g (float[4] x) => (float y) <int64[4] r = {1,2,0,3}, int64[2] ax = {0, 1}> {
      p = CumSum (r, ax)
      q = Reshape (x, p)
      y = ReduceSum <keepdims = 0> (q)
    }"""
    with pytest.raises(ModelLoadError, match=r"node 'p' \(CumSum\) cannot be evaluated on int64\[4\], int64\[2\]"):
        load(text)


@pytest.mark.parametrize("size", [2**62, 2**60])
def test_sizes_beyond_what_is_counted_are_refused(size: int, load: Load) -> None:
    x, y = (helper.make_tensor_value_info(name, 1, [size, 1000]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    with pytest.raises(ModelLoadError, match=r"'x'.*larger than (cosma counts|is counted)"):
        load(helper.make_model(graph))


def test_constants_without_content_say_so(load: Load) -> None:
    x = helper.make_tensor_value_info("x", 1, [4])
    y = onnx.ValueInfoProto(name="y")
    left_out = numpy_helper.from_array(np.array([2, 2]), "s")
    left_out.ClearField("raw_data")
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "s"], ["y"])], "g", [x], [y], [left_out])
    with pytest.raises(ModelLoadError, match="which is not in the file: its content was left out"):
        load(helper.make_model(graph))


def test_constants_under_a_link_to_a_store_are_read(tmp_path: Path) -> None:
    store, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    store.mkdir()
    snapshot.mkdir()
    _external(store).rename(store / "1")
    (store / "2").write_bytes(bytes(8) + np.array([2, 16], np.int64).tobytes())
    (snapshot / "m.onnx").symlink_to(store / "1")
    (snapshot / "m.data").symlink_to(store / "2")
    assert load_onnx(snapshot / "m.onnx").graph.tensors["y"].shape == (2, 16)


@pytest.mark.parametrize("location", ["../secret", "link"])
def test_execution_reads_no_weight_outside_the_models_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(256))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    weight = TensorProto(name="w", data_type=1, dims=[8, 8], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    x, y = (helper.make_tensor_value_info(name, 1, [4, 8]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    path = folder / "m.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    plan = compile(path, Accelerator(scratchpad="4KiB"), strategy="e1")
    with pytest.raises(ModelLoadError, match="outside the model's folder; it is not read"):
        run_plan(plan, path)
    weight.external_data[0].value = "weights"
    (folder / "weights").write_bytes(bytes(255))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    with pytest.raises(ModelLoadError, match=r"'w' ends at byte 256 of .*weights, which has 255 bytes"):
        run_plan(compile(path, Accelerator(scratchpad="4KiB"), strategy="e1"), path)
