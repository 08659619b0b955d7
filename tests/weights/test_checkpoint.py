from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from segfocal.errors import ModelError
from segfocal.weights import read_checkpoint
from segfocal.weights.torch_archive import open_torch_archive

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_a_file_of_torch_save_is_read_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    checkpoint = read_checkpoint(FIXTURES / "torch_archive.pth")
    expected = {
        "plain": [[0, 1, 2], [3, 4, 5]],
        "half": [0, 1, 2],
        "bfloat16": [1, 0.5, -3],
        "transposed": [[0, 3], [1, 4], [2, 5]],
        "part": [4, 5, 6],
        "parameter": [1, 1],
        "scalar": 5,
        "empty": np.zeros((0, 3)),
    }
    assert list(checkpoint.tensors) == list(expected)
    for name, array in expected.items():
        found = checkpoint.tensors[name]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.array(array, np.float32))


class Opcode:
    """Pickles as a call of ``name`` of ``module``."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def write_archive(path: Path, data: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in entries.items():
            archive.writestr(f"archive/data/{name}", content)
    return path


def marker(path):
    Path(path).write_text("executed")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_something_is_refused_and_does_nothing(tmp_path, protocol):
    evidence = tmp_path / "evidence"
    state = {"weight": Opcode(marker, str(evidence))}
    path = write_archive(tmp_path / "evil.bin", pickle.dumps(state, protocol))
    with pytest.raises(ModelError, match=r"refused: it asks for .*marker.*nothing .* executed"):
        read_checkpoint(path)
    assert not evidence.exists()
    pickle.loads(pickle.dumps(state, protocol))  # any other reader would have run it
    assert evidence.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "os system", "builtins getattr", "torch load", "collections Counter",
     "torch._utils _rebuild_tensor_v2.__globals__", "numpy.core.multiarray _reconstruct"],
)  # fmt: skip
def test_names_outside_the_list_are_refused(tmp_path, name):
    module, attribute = name.split()
    data = f"c{module}\n{attribute}\n.".encode()
    with pytest.raises(ModelError, match="it asks for"):
        read_checkpoint(write_archive(tmp_path / "evil.bin", data))


@pytest.mark.parametrize("name", ["torch._utils _rebuild_tensor_v2", "torch FloatStorage"])
@pytest.mark.parametrize("state", [b"(N}U\x05_callI1\nst", b"}U\x05dtypeI1\ns"])
def test_what_a_pickle_gets_it_cannot_alter(tmp_path, name, state):
    # BUILD sets attributes of whatever stands there, frozen or not.
    data = b"c" + name.replace(" ", "\n").encode() + b"\n" + state + b"b."
    with pytest.raises(ModelError, match="refused: it alters what it was given"):
        read_checkpoint(write_archive(tmp_path / "evil.bin", data))


def tensor_pickle(numel=4, offset=0, size=(2, 2), stride=(2, 1), storage="FloatStorage", key="0"):
    """Return the pickle of ``{"weight": tensor}``, written opcode by opcode."""

    def tuple_of(numbers):
        return b"(" + b"".join(f"I{number}\n".encode() for number in numbers) + b"t"

    pid = f"(S'storage'\nctorch\n{storage}\nS'{key}'\nS'cpu'\nI{numel}\nt".encode() + b"Q"
    return (
        b"\x80\x02}S'weight'\nctorch._utils\n_rebuild_tensor_v2\n("
        + pid
        + f"I{offset}\n".encode()
        + tuple_of(size)
        + tuple_of(stride)
        + b"I00\nccollections\nOrderedDict\n)RtRs."
    )


FOUR = np.arange(4, dtype="<f4").tobytes()


def test_a_hand_written_archive_is_read(tmp_path):
    path = write_archive(tmp_path / "a.bin", tensor_pickle(), **{"0": FOUR})
    np.testing.assert_array_equal(read_checkpoint(path).tensors["weight"], [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    "wrong",
    [{"size": (3, 2)}, {"offset": 1}, {"stride": (40000, 1)}, {"size": (-1, 2)}, {"offset": -1},
     {"stride": (-2, 1)}, {"numel": 2**40}, {"key": "1"}, {"storage": "DoubleStorage"},
     {"stride": (1,)}],
    ids=str,
)  # fmt: skip
def test_tensors_that_reach_past_their_storage_are_refused(tmp_path, wrong):
    path = write_archive(tmp_path / "a.bin", tensor_pickle(**wrong), **{"0": FOUR})
    with pytest.raises(ModelError, match=r"refused|damaged"):
        read_checkpoint(path)


def test_compressed_entries_are_refused(tmp_path):
    path = tmp_path / "bomb.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle())
        archive.writestr("archive/data/0", FOUR)
    with pytest.raises(ModelError, match="compressed"):
        read_checkpoint(path)


def test_every_truncation_of_a_file_is_an_error_of_one_line(tmp_path):
    whole = (FIXTURES / "torch_archive.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError) as caught:
            read_checkpoint(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_changed_bytes_of_a_pickle_never_raise_anything_else():
    buffer = io.BytesIO((FIXTURES / "torch_archive.pth").read_bytes())
    with zipfile.ZipFile(buffer) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("data.pkl"))
        data = bytearray(archive.read(name))
    rng = np.random.RandomState(0)
    for _ in range(300):
        changed = bytearray(data)
        for place in rng.randint(0, len(data), 3):
            changed[place] = rng.randint(0, 256)
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            archive.writestr("archive/data.pkl", bytes(changed))
        with contextlib.suppress(ModelError):
            open_torch_archive(memory)


def test_a_pickle_of_the_old_format_needs_torch_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"before 1\.6, which needs PyTorch"):
        read_checkpoint(FIXTURES / "torch_legacy.pth")


def test_an_old_torch_is_refused(monkeypatch):
    class Old:
        __version__ = "2.5.1+cpu"

    monkeypatch.setitem(sys.modules, "torch", Old)
    with pytest.raises(ModelError, match=r"2\.6 or newer"):
        read_checkpoint(FIXTURES / "torch_legacy.pth")


def test_an_old_file_is_read_where_torch_is_installed():
    pytest.importorskip("torch", reason="the format before PyTorch 1.6 needs PyTorch")
    found = read_checkpoint(FIXTURES / "torch_legacy.pth").tensors
    np.testing.assert_array_equal(found["weight"], [0, 1, 2, 3])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_safetensors_of_other_types_become_float32(tmp_path, dtype):
    values = np.array([1.5, -2.25, 0.125])
    if dtype is ml_dtypes.bfloat16:
        # Written by hand: the library's NumPy writer does not know it everywhere.
        data = values.astype(dtype).tobytes()
        header = json.dumps(
            {"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, len(data)]}}
        ).encode()
        content = struct.pack("<Q", len(header)) + header + data
        (tmp_path / "model.safetensors").write_bytes(content)
    else:
        save_file({"a": values.astype(dtype)}, tmp_path / "model.safetensors")
    found = read_checkpoint(tmp_path).tensors["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    path = tmp_path / "model.safetensors"
    save_file({"fine": np.ones(3, "f4"), "broken": np.array([1, value], "f4")}, path)
    with pytest.raises(ModelError, match="broken holds NaN or infinity"):
        read_checkpoint(path)


def test_shards_are_joined(tmp_path):
    save_file({"a": np.ones(2, "f4")}, tmp_path / "one.safetensors")
    save_file({"b": np.zeros(2, "f4")}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(read_checkpoint(tmp_path).tensors) == {"a", "b"}


@pytest.mark.parametrize("name", ["../secret.safetensors", "missing.safetensors"])
def test_an_index_names_files_of_its_folder_only(tmp_path, name):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file({"a": np.ones(2, "f4")}, tmp_path / "secret.safetensors")
    index = {"weight_map": {"a": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="expected a file in"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is no checkpoint"), (b"hello, world", "is no checkpoint"),
     (struct.pack("<Q", 2**40) + b"{}", "damaged safetensors"),
     (b"PK\x03\x04 and nothing else", "damaged zip")],
)  # fmt: skip
def test_files_that_are_no_checkpoint_are_refused(tmp_path, content, message):
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_checkpoint(path)


def test_missing_files_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        read_checkpoint(tmp_path / "nothing.bin")
    with pytest.raises(ModelError, match="holds no checkpoint"):
        read_checkpoint(tmp_path)
