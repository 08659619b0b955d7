"""Runs that are killed and run again: nothing before the end, the same bytes at the end."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import nibabel
import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.engine.provenance import provenance_path
from segfocal.errors import OutputError, OutputExistsError, ScanError, SegfocalWarning

# A model of numpy alone: a process that runs it starts in half a second.
STUB = """
import os, signal, sys, time
import numpy as np
from segfocal.card import Card, Channel, LabelClass

class Stub:
    '''Depends on where in its tile a pixel lies, so that other tiles would be told.'''
    ndim, output_stride, engine, batch_matters = 2, 1, "numpy", False

    def __init__(self, hash="stub", slow=0.0, ndim=2):
        self.hash, self.slow, self.ndim = hash, slow, ndim
        self.tiles = 0
        self.card = Card(
            ndim=ndim,
            channels=(Channel(name="a"),),
            classes=tuple(
                LabelClass(value=v, name=f"class {v}", color=(v, 0, 0)) for v in (1, 2, 9)
            ),
            tile=(64, 64) if ndim == 2 else (12, 12, 12),
            orientation="RAS" if ndim == 3 else None,
        )

    def __call__(self, values, valid):
        time.sleep(self.slow)
        self.tiles += int(valid.reshape(len(valid), -1).any(1).sum())
        x = np.where(valid[..., None], values, 0) / np.float32(255)
        ramp = np.linspace(0, 1, x.shape[-2], dtype=np.float32)[:, None]
        score = np.concatenate([x, 1 - x, np.sin(9 * x + ramp)], -1)
        score = np.exp(3 * score)
        return score / score.sum(-1, keepdims=True)
"""
namespace: dict = {}
exec(STUB, namespace)
Stub = namespace["Stub"]

RUN = (
    STUB
    + """
import segfocal as sf
sf.predict(Stub(slow=float(sys.argv[3])), sys.argv[1], sys.argv[2], notice=print)
"""
)

KILLED_AT_CALL = (
    STUB
    + """
import segfocal as sf
left = int(sys.argv[3])
def counted(call):
    def counting(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return counting
for name in ("replace", "fsync", "unlink", "rmdir", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
sf.predict(Stub(), sys.argv[1], sys.argv[2])
print("left", left)
"""
)


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif", (700, 500))


def write_scene(path, shape):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (shape[0] // 10, shape[1] // 10)).repeat(10, 0).repeat(10, 1)
    with rasterio.open(
        path, "w", driver="GTiff", width=shape[1], height=shape[0], count=1, dtype="uint8",
        nodata=0, crs="EPSG:32119", transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
    ) as out:  # fmt: skip
        out.write(pixels.astype(np.uint8), 1)
    return path


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    path = tmp_path_factory.mktemp("volume") / "volume.nii.gz"
    voxels = np.random.default_rng(0).integers(0, 255, (23, 31, 40)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, 2, 1.5, 1])), path)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


OUTPUTS = ["labels.tif", "labels.tif.aux.xml", "labels.tif.json"]


def stop_after(share):
    def progress(done, total):
        if done >= share * total:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1])
@pytest.mark.parametrize("kind", ["scene", "volume"])
def test_a_stopped_run_continues_and_writes_the_same_bytes(request, kind, share, tmp_path):
    source = request.getfixturevalue(kind)
    options = {"ndim": 2 if kind == "scene" else 3}
    name = "labels.tif" if kind == "scene" else "labels.nii.gz"
    (tmp_path / "whole").mkdir()
    whole, first, second = (Stub(**options) for _ in range(3))
    sf.predict(whole, source, tmp_path / "whole" / name)
    notices = []
    with pytest.raises(KeyboardInterrupt):
        sf.predict(
            first, source, tmp_path / name, progress=stop_after(share), notice=notices.append
        )
    assert notices == []
    assert visible(tmp_path) == ["whole"]
    result = sf.predict(second, source, tmp_path / name, notice=notices.append)
    if share > 0.1:  # else nothing was finished
        assert re.fullmatch(r".*labels\.\S+: continues with \d+ units kept", notices[0])
    assert digest(tmp_path / name) == digest(tmp_path / "whole" / name) == result.sha256
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())
    # What is repeated: the tiles under way, and one row that reaches into the next stretch.
    assert whole.tiles < first.tiles + second.tiles < 1.5 * whole.tiles


def test_the_bytes_do_not_depend_on_batch_or_place(scene, tmp_path):
    digests, prints = set(), set()
    for batch_size in (1, 3, 8):
        (tmp_path / str(batch_size)).mkdir()
        result = sf.predict(
            Stub(), scene, tmp_path / str(batch_size) / "x.tif", batch_size=batch_size
        )
        digests.add(result.sha256)
        prints.add(result.fingerprint)
    assert len(digests) == len(prints) == 1


def test_a_finished_output_is_recognised_and_left_alone(scene, tmp_path):
    out = tmp_path / "labels.tif"
    first = sf.predict(Stub(), scene, out)
    before = out.stat()
    model, notices = Stub(), []
    for overwrite in (False, True):
        again = sf.predict(model, scene, out, notice=notices.append, overwrite=overwrite)
        assert again.unchanged
        assert not first.unchanged
        assert (again.class_pixels, again.sha256) == (first.class_pixels, first.sha256)
    assert model.tiles == 0
    assert "finished already" in notices[0]
    assert out.stat().st_mtime_ns == before.st_mtime_ns
    for change in ({"model": Stub(hash="other")}, {"blend": "hann"}, {"tile": 96}):
        arguments = {"model": Stub(), **change}
        with pytest.raises(OutputExistsError):
            sf.predict(arguments.pop("model"), scene, out, **arguments)
    content = bytearray(out.read_bytes())
    content[-1] ^= 1
    out.write_bytes(content)
    with pytest.raises(OutputExistsError):
        sf.predict(Stub(), scene, out)
    assert sf.predict(Stub(), scene, out, overwrite=True).sha256 == first.sha256


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model": Stub(hash="other")}, "the model"),
        ({"overlap": 24}, "the parameters"),
        ({"blend": "linear"}, "the parameters"),
    ],
)
def test_another_model_or_parameter_starts_afresh_and_says_so(scene, tmp_path, change, word):
    (tmp_path / "whole").mkdir()
    arguments = {"model": Stub(), **change}
    model = arguments.pop("model")
    expected = sf.predict(model, scene, tmp_path / "whole" / "labels.tif", **arguments)
    with pytest.raises(KeyboardInterrupt):
        sf.predict(Stub(), scene, tmp_path / "labels.tif", progress=stop_after(0.7))
    notices = []
    found = sf.predict(model, scene, tmp_path / "labels.tif", notice=notices.append, **arguments)
    assert notices == [f"{tmp_path / 'labels.tif'}: starts afresh, as {word} changed"]
    assert found.sha256 == expected.sha256


def test_another_input_starts_afresh(scene, tmp_path):
    copy = tmp_path / "scene.tif"
    copy.write_bytes(scene.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        sf.predict(Stub(), copy, tmp_path / "labels.tif", progress=stop_after(0.7))
    os.utime(copy, ns=(1, 1))
    notices = []
    sf.predict(Stub(), copy, tmp_path / "labels.tif", notice=notices.append)
    assert notices == [f"{tmp_path / 'labels.tif'}: starts afresh, as the input changed"]


def test_a_scan_that_changes_while_it_is_read_is_told(scene, tmp_path):
    copy = tmp_path / "scene.tif"
    copy.write_bytes(scene.read_bytes())

    def meddle(done, total):
        os.utime(copy, ns=(1, 1))

    with pytest.raises(ScanError, match="changed while it was read"):
        sf.predict(Stub(), copy, tmp_path / "labels.tif", progress=meddle)
    assert visible(tmp_path) == ["scene.tif"]


def test_a_damaged_unit_is_computed_anew(scene, tmp_path):
    expected = sf.predict(Stub(), scene, tmp_path / "whole.tif")
    with pytest.raises(KeyboardInterrupt):
        sf.predict(Stub(), scene, tmp_path / "labels.tif", progress=stop_after(1))
    units = sorted((tmp_path / ".labels.tif.scratch").glob("*.unit"))
    units[2].write_bytes(b"rubbish")
    notices, model = [], Stub()
    found = sf.predict(model, scene, tmp_path / "labels.tif", notice=notices.append)
    assert "1 were damaged and are computed anew" in notices[0]
    assert model.tiles < expected.tiles / 2
    assert digest(tmp_path / "labels.tif") == found.sha256 == expected.sha256


def test_the_provenance_says_what_the_output_was_made_from(scene, tmp_path):
    result = sf.predict(Stub(), scene, tmp_path / "labels.tif", overlap=16)
    assert visible(tmp_path) == OUTPUTS
    told = json.loads(provenance_path(tmp_path / "labels.tif").read_text())
    assert told["sha256"] == digest(tmp_path / "labels.tif") == result.sha256
    assert told["input"]["path"] == str(scene)
    assert (told["model"], told["engine"]) == ("stub", "numpy")
    assert told["parameters"] == {
        "tile": [64, 64], "overlap": [16, 16], "halo": [0, 0], "blend": "gaussian",
        "channels": [0],
    }  # fmt: skip
    assert told["versions"]["segfocal"] == sf.__version__
    content = told["result"]
    for label in content["classes"]:
        assert label["hectares"] == pytest.approx(label["pixels"] * 4 / 10_000)
    counted = sum(label["pixels"] for label in content["classes"]) + content["invalid_pixels"]
    assert counted == 700 * 500
    assert sf.inspect(tmp_path / "labels.tif")["provenance"] == told
    with rasterio.open(tmp_path / "labels.tif") as labels:
        tags = labels.tags()
    assert (tags["SEGFOCAL_MODEL"], tags["SEGFOCAL_VERSION"]) == ("stub", sf.__version__)
    assert json.loads(tags["SEGFOCAL_PARAMETERS"]) == told["parameters"]


def test_a_plain_geotiff_is_another_output(scene, tmp_path):
    cog = sf.predict(Stub(), scene, tmp_path / "a.tif")
    plain = sf.predict(Stub(), scene, tmp_path / "b.tif", layout="gtiff")
    assert plain.fingerprint != cog.fingerprint
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        assert a.overviews(1)
        assert not b.overviews(1)
        np.testing.assert_array_equal(a.read(), b.read())
    with pytest.raises(OutputExistsError):
        sf.predict(Stub(), scene, tmp_path / "a.tif", layout="gtiff")


def test_a_file_of_the_user_is_not_taken_for_provenance(scene, tmp_path):
    beside = tmp_path / "labels.tif.json"
    beside.write_text('{"precious": 1}')
    with pytest.raises(OutputExistsError, match=r"labels\.tif\.json: exists already"):
        sf.predict(Stub(), scene, tmp_path / "labels.tif")
    assert beside.read_text() == '{"precious": 1}'
    assert visible(tmp_path) == ["labels.tif.json"]


def test_a_model_without_identity_is_never_continued(scene, tmp_path):
    class Nameless(Stub):
        def __init__(self):
            super().__init__()
            del self.hash

    with pytest.raises(KeyboardInterrupt):
        sf.predict(Nameless(), scene, tmp_path / "labels.tif", progress=stop_after(0.7))
    notices = []
    sf.predict(Nameless(), scene, tmp_path / "labels.tif", notice=notices.append)
    assert "starts afresh, as the model changed" in notices[0]


@pytest.fixture
def unknown(scene):
    """Name of a scene of which nothing tells whether it changed."""
    with rasterio.MemoryFile(scene.read_bytes(), filename="unknown.tif") as file:
        yield file.name


UNKNOWN = "nothing tells whether it changed"


@pytest.mark.filterwarnings(f"ignore:.*{UNKNOWN}.*:segfocal.errors.SegfocalWarning")
def test_a_scan_without_identity_is_never_continued(scene, unknown, tmp_path):
    whole, first, second = (Stub() for _ in range(3))
    sf.predict(whole, scene, tmp_path / "whole.tif")
    notices = []
    with pytest.raises(KeyboardInterrupt):
        sf.predict(first, unknown, tmp_path / "labels.tif", progress=stop_after(0.5))
    with pytest.warns(SegfocalWarning, match=UNKNOWN):
        sf.predict(second, unknown, tmp_path / "labels.tif", notice=notices.append)
    assert second.tiles == whole.tiles
    assert [line for line in notices if "starts afresh, as the input changed" in line]
    with (
        rasterio.open(tmp_path / "labels.tif") as labels,
        rasterio.open(tmp_path / "whole.tif") as o,
    ):
        np.testing.assert_array_equal(labels.read(), o.read())


@pytest.mark.filterwarnings(f"ignore:.*{UNKNOWN}.*:segfocal.errors.SegfocalWarning")
def test_a_scan_without_identity_is_never_finished(unknown, tmp_path):
    sf.predict(Stub(), unknown, tmp_path / "labels.tif")
    with pytest.raises(OutputExistsError, match="exists already"):
        sf.predict(Stub(), unknown, tmp_path / "labels.tif")
    again = Stub()
    assert not sf.predict(again, unknown, tmp_path / "labels.tif", overwrite=True).unchanged
    assert again.tiles > 0
    with pytest.raises(ScanError, match="nothing tells whether all parts are of the same scan"):
        sf.predict_part(Stub(), unknown, tmp_path / "parts.tif", "1/2")
    assert not (tmp_path / ".parts.tif.scratch").exists()


def test_too_little_disk_is_told_before_the_first_tile(scene, tmp_path, monkeypatch):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    model = Stub()
    with pytest.raises(OutputError, match=r"kB are needed and 1 kB are free; free space"):
        sf.predict(model, scene, tmp_path / "labels.tif")
    assert model.tiles == 0
    assert list(tmp_path.iterdir()) == []


def test_the_same_model_has_the_same_hash_in_every_process(tmp_path):
    from segfocal.engine.identity import model_identity
    from segfocal.engine.predictors import as_predictor

    keras.utils.set_random_seed(0)
    model = sf.FocalUNet(num_classes=2, in_channels=1, preset="nano")
    sf.save_model(model, tmp_path / "model.keras")
    here = model_identity(as_predictor(model))
    there = run(
        "import sys\n"
        "from segfocal.engine.identity import model_identity\n"
        "from segfocal.engine.predictors import as_predictor\n"
        "print(model_identity(as_predictor(sys.argv[1])).hash)",
        tmp_path / "model.keras",
    )
    assert there.stdout.strip() == here.hash, there.stderr
    assert here.batch_matters
    options = sf.FocalUNet(
        num_classes=2, in_channels=1, preset="nano", encoder={"gate_activation": "softmax"}
    )
    options.set_weights(model.get_weights())
    assert model_identity(as_predictor(options)).hash != here.hash
    weights = model.get_weights()
    weights[-1][0] = np.nextafter(weights[-1][0], np.float32(9))
    model.set_weights(weights)
    assert model_identity(as_predictor(model)).hash != here.hash


@pytest.mark.parametrize("first", [None, "narrow"])
def test_another_memory_limit_continues_with_the_same_bytes(scene, tmp_path, monkeypatch, first):
    """Units of strips of one width are of use to strips of another."""
    monkeypatch.setattr("segfocal.engine.job.OTHER_BYTES", 0)
    monkeypatch.setattr("segfocal.engine.job.peak_bytes", lambda call: (call(), 0))
    whole = Stub()
    expected = sf.predict(whole, scene, tmp_path / "whole.tif")
    limits = [None, 700_000]
    if first == "narrow":
        limits.reverse()
    models = [Stub(), Stub()]
    with pytest.raises(KeyboardInterrupt):
        sf.predict(
            models[0], scene, tmp_path / "labels.tif", progress=stop_after(0.6),
            max_memory=limits[0], batch_size=1,
        )  # fmt: skip
    notices = []
    found = sf.predict(
        models[1], scene, tmp_path / "labels.tif", max_memory=limits[1], batch_size=1,
        notice=notices.append,
    )  # fmt: skip
    assert "continues with" in notices[0]
    assert found.sha256 == expected.sha256
    assert found.fingerprint == expected.fingerprint
    assert models[1].tiles < whole.tiles


class Hungry(Stub):
    """Finds no room for more than so many tiles."""

    def __init__(self, room, **options):
        super().__init__(**options)
        self.room, self.sizes = room, []

    def __call__(self, values, valid):
        self.sizes.append(len(values))
        if len(values) > self.room:
            raise MemoryError("no room")
        return super().__call__(values, valid)


def test_out_of_memory_shrinks_the_batch_and_not_the_grid(scene, tmp_path):
    expected = sf.predict(Stub(), scene, tmp_path / "whole.tif")
    model, notices = Hungry(3), []
    found = sf.predict(model, scene, tmp_path / "labels.tif", batch_size=13, notice=notices.append)
    assert (model.sizes[:3], set(model.sizes[2:])) == ([13, 6, 3], {3})
    assert notices == []
    assert found.sha256 == expected.sha256
    with pytest.raises(MemoryError, match="one tile of 64 x 64 does not fit"):
        sf.predict(Hungry(0), scene, tmp_path / "none.tif")
    assert not list(tmp_path.glob("*none*"))


def test_a_batch_that_matters_is_made_smaller_for_the_whole_run(scene, tmp_path):
    def sensitive(room):
        model = Hungry(room)
        model.batch_matters = True
        return model

    two = sf.predict(sensitive(99), scene, tmp_path / "two.tif", batch_size=2)
    eight = sf.predict(sensitive(99), scene, tmp_path / "eight.tif", batch_size=8)
    assert two.fingerprint != eight.fingerprint
    notices = []
    options = {"batch_size": 8, "notice": notices.append}
    with pytest.raises(KeyboardInterrupt):
        sf.predict(
            sensitive(3), scene, tmp_path / "labels.tif", progress=stop_after(0.7), **options
        )
    assert [notice.split("; ")[-1] for notice in notices] == [
        "goes on with batches of 4",
        "goes on with batches of 2",
    ]
    notices.clear()
    model = sensitive(3)
    found = sf.predict(model, scene, tmp_path / "labels.tif", **options)
    assert len(notices) == 1
    assert "continues with" in notices[0]
    assert set(model.sizes) == {2}
    assert (found.fingerprint, found.sha256) == (two.fingerprint, two.sha256)
    assert sf.predict(sensitive(3), scene, tmp_path / "labels.tif", batch_size=8).unchanged


@pytest.fixture(scope="module")
def expected(scene, tmp_path_factory):
    return sf.predict(Stub(), scene, tmp_path_factory.mktemp("whole") / "labels.tif").sha256


def killed_at(scene, folder, call):
    """Run in a process that kills itself at its n-th change of the disk; True when it did."""
    done = run(KILLED_AT_CALL, scene, folder / "labels.tif", call)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("call", [0, 1, 2, 4, 30, *range(58, 70), 80, 97])
def test_killed_at_a_change_of_the_disk(scene, expected, tmp_path, call):
    killed = killed_at(scene, tmp_path, call)
    if killed and (tmp_path / "labels.tif").exists():  # killed behind the last rename
        assert digest(tmp_path / "labels.tif") == expected
    again = run(RUN, scene, tmp_path / "labels.tif", 0)
    assert again.returncode == 0, again.stderr
    assert digest(tmp_path / "labels.tif") == expected
    assert visible(tmp_path) == OUTPUTS
    assert not list(tmp_path.glob(".labels.tif.*"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)], ids=["3", "20"])
def test_killed_at_random_moments(tmp_path, kills):
    scene = write_scene(tmp_path / "scene.tif", (1500, 1000))
    folder = tmp_path / "out"
    folder.mkdir()
    out = folder / "labels.tif"
    started = time.monotonic()
    whole = run(RUN, scene, out, 0.005)
    seconds = time.monotonic() - started
    assert whole.returncode == 0, whole.stderr
    expected = digest(out)
    rng = np.random.default_rng()
    killed = assembling = 0
    while killed < kills:
        shutil.rmtree(folder)  # what a kill behind the last rename leaves, too
        folder.mkdir()
        left = run_and_kill(scene, out, float(rng.uniform(0, seconds)))
        while left is not None:
            killed += 1
            assembling += left
            assert not out.exists()
            # Every other kill waits for the assembly, which is short.
            moment = float(rng.uniform(0, 0.2 if killed % 2 else seconds))
            left = run_and_kill(scene, out, moment, assembly=killed % 2 == 1)
        assert digest(out) == expected
    print(f"{killed} kills, {assembling} of them while assembling")


def run_and_kill(scene, out, seconds, assembly=False):
    """Kill a run after some time, or that long after its assembly began.

    Returns:
        None when the run ended before, else whether it was assembling.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(scene), str(out), "0.005"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while assembly and process.poll() is None and not is_assembling(out):
        time.sleep(0.005)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        if process.returncode == 0 or out.exists():
            return None
        assert process.returncode == -signal.SIGKILL
        return is_assembling(out)
    assert process.returncode == 0, errors
    return None


def is_assembling(out):
    return any(out.parent.glob(".labels.tif*.partial/scratch/labels.vrt"))


VOLUME_RUN = RUN.replace("Stub(slow=float(sys.argv[3]))", "Stub(slow=float(sys.argv[3]), ndim=3)")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_volumes_killed_at_random_moments(tmp_path, suffix):
    assert VOLUME_RUN != RUN
    voxels = np.random.default_rng(0).integers(0, 255, (40, 50, 160)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, 2, 1.5, 1])), tmp_path / f"v{suffix}")
    folder = tmp_path / "out"
    folder.mkdir()
    out = folder / f"labels{suffix}"
    started = time.monotonic()
    whole = run(VOLUME_RUN, tmp_path / f"v{suffix}", out, 0.01)
    seconds = time.monotonic() - started
    assert whole.returncode == 0, whole.stderr
    expected, names = digest(out), visible(folder)
    rng = np.random.default_rng()
    killed = 0
    while killed < 6:
        shutil.rmtree(folder)
        folder.mkdir()
        ended = False
        while not ended:
            process = subprocess.Popen(
                [sys.executable, "-c", VOLUME_RUN, tmp_path / f"v{suffix}", out, "0.01"],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                _, errors = process.communicate(timeout=float(rng.uniform(0.3, 1) * seconds))
                assert process.returncode == 0, errors
                ended = True
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                ended = out.exists()  # killed behind the last rename
                killed += not ended
        assert digest(out) == expected
        assert visible(folder) == names
