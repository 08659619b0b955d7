from __future__ import annotations

import hashlib
import os
import sys
import types
from pathlib import Path

import pytest

from segfocal.errors import ModelError
from segfocal.presets import PRESETS
from segfocal.weights import PUBLISHED, cache_folder, fetch, from_pretrained, hub

NAME = "focalnet_tiny_srf"
REPOSITORY = "timm/focalnet_tiny_srf.ms_in1k"
CONTENT = b"weights"


class FakeHub(types.ModuleType):
    """Stands for huggingface_hub: one repository with one file."""

    def __init__(self, content=CONTENT, reported=None, error=None):
        super().__init__("huggingface_hub")
        self.content, self.error = content, error
        self.reported = reported or hashlib.sha256(content).hexdigest()
        self.calls = []
        self.HfApi = lambda: self

    def model_info(self, repository):
        if self.error:
            raise self.error
        self.calls.append(("model_info", repository))
        return types.SimpleNamespace(sha="abc123")

    def get_paths_info(self, repository, paths, revision):
        self.calls.append(("get_paths_info", repository, paths, revision))
        return [types.SimpleNamespace(lfs=types.SimpleNamespace(sha256=self.reported))]

    def hf_hub_download(self, repository, name, revision, local_dir):
        self.calls.append(("hf_hub_download", repository, name, revision))
        self.telemetry = os.environ.get("HF_HUB_DISABLE_TELEMETRY")
        path = Path(local_dir) / name
        path.write_bytes(self.content)
        return str(path)


@pytest.fixture
def install(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGFOCAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")

    def install(module):
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        return module

    return install


def test_a_download_is_verified_and_kept(install):
    fake = install(FakeHub())
    path = fetch(NAME)
    assert path == cache_folder() / "timm--focalnet_tiny_srf.ms_in1k" / "model.safetensors"
    assert path.read_bytes() == CONTENT
    assert [path.name for path in path.parent.iterdir()] == ["model.safetensors"]
    assert fake.calls == [
        ("model_info", REPOSITORY),
        ("get_paths_info", REPOSITORY, ["model.safetensors"], "abc123"),
        ("hf_hub_download", REPOSITORY, "model.safetensors", "abc123"),
    ]
    assert fake.telemetry == "1"
    install(FakeHub(error=OSError("offline")))
    assert fetch(NAME) == path  # from the folder


def test_a_download_with_another_checksum_is_refused_and_not_kept(install, tmp_path):
    install(FakeHub(reported="0" * 64))
    with pytest.raises(ModelError, match=f"sha256 is not {'0' * 64}, which the hub reports"):
        fetch(NAME)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_pinned_checksum_is_verified_in_the_folder_too(install, monkeypatch):
    install(FakeHub())
    path = fetch(NAME)
    pinned = hub.HubFile(REPOSITORY, sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(PUBLISHED, NAME, pinned)
    assert fetch(NAME) == path
    path.write_bytes(b"something else")
    with pytest.raises(ModelError, match="remove it and fetch"):
        fetch(NAME)


@pytest.mark.parametrize(
    "module", [None, FakeHub(error=ConnectionError("no route to host\nlong story"))]
)
def test_without_a_network_the_message_says_what_to_fetch_and_where_to_put_it(install, module):
    install(module)
    with pytest.raises(ModelError) as caught:
        from_pretrained(NAME)
    message = str(caught.value)
    place = cache_folder() / "timm--focalnet_tiny_srf.ms_in1k" / "model.safetensors"
    for part in (REPOSITORY, "model.safetensors", str(place), "SEGFOCAL_CACHE"):
        assert part in message
    assert "\n" not in message
    assert "://" not in message


def test_a_name_that_nobody_published_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match=r"no such file and no published encoder.*focalnet_huge"):
        from_pretrained("focalnet_tiny")


def test_every_published_preset_has_a_file():
    published = {f"focalnet_{name}" for name in PRESETS if PRESETS[name].embed_dim >= 96}
    assert set(PUBLISHED) == published
    for name, file in PUBLISHED.items():
        trained_on = "ms_in1k" if name[9:13] in ("tiny", "smal", "base") else "ms_in22k"
        assert file.repository == f"timm/{name}.{trained_on}"


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("SEGFOCAL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "segfocal"
    monkeypatch.setenv("SEGFOCAL_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
