"""The import graph of the package: imports point downward only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import segfocal

PACKAGE = Path(segfocal.__file__).parent

LAYERS = {
    "0": ["errors", "types", "version", "quiet", "unfinished"],
    "1": [
        "annotated",
        "blending",
        "bootstrap",
        "card",
        "card_files",
        "components",
        "confusion",
        "interpolation",
        "onnx_metadata",
        "outlines",
        "presets",
        "work",
        "reliability",
        "rounding",
        "scores",
        "surface",
        "temperature",
        "tiling",
    ],
    "2a": ["io"],
    "2b": ["layers", "models", "losses", "metrics", "weights"],
    "3": ["data"],
    "4": [
        "agenda",
        "baselines",
        "batches",
        "cluster_connection",
        "clusters",
        "conversion",
        "cross_validation",
        "demonstration",
        "engine",
        "evaluation",
        "exporting",
        "inspection",
        "many_scans",
        "output_names",
        "part_orders",
        "own_outputs",
        "run_descriptions",
        "run_records",
        "summaries",
        "summary_files",
        "overlay",
        "planning",
        "prediction",
        "prepared",
        "quantizing",
        "report",
        "scan_lists",
        "scan_shares",
        "scan_units",
        "scheduling",
        "scoring",
        "scan_parts",
        "shards",
        "spec_check",
        "spec_drafts",
        "speeds",
        "training",
    ],
    "5": ["cli", "__main__"],
    "page": ["__init__"],
}

MAY_IMPORT = {
    "0": {"0"},
    "1": {"0", "1"},
    "2a": {"0", "1", "2a"},
    "2b": {"0", "1", "2b"},
    "3": {"0", "1", "2a", "3"},
    "4": {"0", "1", "2a", "2b", "3", "4"},
    # Commands reach layer 4 through the public page.
    "5": {"0", "1", "4", "5", "page"},
    "page": {"0", "1", "2a", "2b", "3", "4"},
}

ONLY_IN = {
    "rasterio": {"2a"},
    "pyogrio": {"2a"},
    "shapely": {"2a"},
    "nibabel": {"2a"},
    "keras": {"2b", "4"},
    "albumentations": {"3"},
    "click": {"5"},
    "rich": {"5"},
    "tensorflow": set(),
    "torch": set(),
    "onnx": {"4"},
    "onnxruntime": {"4"},
    "nncf": {"4"},
    "openvino": {"4"},
    "tf2onnx": {"4"},
    "jax": set(),
    "ray": {"4"},
}

LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if "samples" not in path.relative_to(PACKAGE).parts
)


def home(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    layer = LAYER_OF[home(path)]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "segfocal":
            known = parts[1] if len(parts) > 1 and parts[1] in LAYER_OF else "__init__"
            target = LAYER_OF[known]
            assert target in MAY_IMPORT[layer], f"{path.name} (layer {layer}) imports {name}"
        elif parts[0] in ONLY_IN:
            assert layer in ONLY_IN[parts[0]], f"{path.name} (layer {layer}) imports {name}"
        assert not name.startswith("keras.src"), f"{path.name} reaches into Keras: {name}"


def test_no_module_hides_a_public_function():
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if path.is_dir()
    }
    assert not modules & set(segfocal.__all__)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    "code",
    [
        "import segfocal, sys",
        "import sys; sys.argv = ['segfocal', '--help']\n"
        "from segfocal.cli import segfocal as command\n"
        "try: command(prog_name='segfocal')\nexcept SystemExit as end: assert end.code == 0",
        "import segfocal, sys; segfocal.open_scan, segfocal.load_spec, segfocal.predict",
    ],
)
def test_looking_around_loads_no_heavy_library(code):
    heavy = "{'tensorflow', 'keras', 'jax', 'torch', 'albumentations', 'skimage', 'PIL'}"
    done = run_python(f"{code}\nimport sys; assert not {heavy} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_every_public_name_can_be_loaded():
    for name in segfocal.__all__:
        assert getattr(segfocal, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'predikt'"):
        _ = segfocal.predikt


def test_loading_keras_is_quiet_and_passes_other_messages_on():
    done = run_python(
        "import os, sys, importlib\n"
        "real = importlib.import_module\n"
        "def noisy(name, *rest, **more):\n"
        "    if name == 'keras': os.write(2, b'something is broken\\n')\n"
        "    return real(name, *rest, **more)\n"
        "importlib.import_module = noisy\n"
        "from segfocal.quiet import load_keras\n"
        "load_keras()\n"
        "import keras; keras.ops.ones(3) + 1\n"
    )
    assert done.returncode == 0
    assert done.stderr == "something is broken\n"
