"""What a user gets who installs a wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, REPOSITORY],
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_samples_specs_and_their_licences(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "segfocal/samples/north_carolina/landsat.tif",
        "segfocal/samples/north_carolina/landcover.tif",
        "segfocal/samples/spine/ct.nii.gz",
        "segfocal/samples/spine/vertebrae.nii.gz",
        "segfocal/samples/LICENSES.md",
        "segfocal/data_specs/nc_landcover.yaml",
        "segfocal/data_specs/spine_ct.yaml",
        "segfocal/py.typed",
    ):
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("tests/" in name or "shared" in name for name in names)


def test_the_installed_package_finds_its_specs_and_samples(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import segfocal as sf\n"
        "from segfocal.demonstration import DEMOS, bundled_spec\n"
        f"assert sf.__file__.startswith({str(tmp_path)!r}), sf.__file__\n"
        "for demo in DEMOS.values():\n"
        "    spec = sf.load_spec(bundled_spec(demo.spec))\n"
        "    for case in spec.cases:\n"
        "        with sf.open_scan(spec.path(case.image)) as scan:\n"
        "            print(spec.path(case.image), scan.shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tmp_path)) == 2
    assert "(443, 489)" in done.stdout
