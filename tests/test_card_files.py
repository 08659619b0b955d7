"""Reading cards from files, with bytes as the first release wrote them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from segfocal.card import Card
from segfocal.card_files import ModelFacts, is_exported_model, read_card, read_facts
from segfocal.errors import ModelError
from segfocal.inspection import inspect
from segfocal.onnx_metadata import read_onnx_metadata

# Files like these are on people's disks. Never edit them.
CARD = (
    '{"format":1,"segfocal":"0.1.0","ndim":2,"channels":[{"name":"b\u00fa \\"<nir>\\"","mean":41.5,'
    '"std":312.25,"low":-1.0,"high":null}],"named_channels":true,"valid_when":"any","classes":'
    '[{"value":4,"name":"Wald","color":[0,0,0]},{"value":255,"name":"sea","color":[1,2,3]}],'
    '"tile":[64,32],"resolution":null,"orientation":null}'
)
FACTS = {
    "card": CARD,
    "output_stride": "32",
    "output": "probabilities",
    "model_hash": "64f5000a02508a3a6b967484763f2ef2f892ec84dc8c9b35745b552726018dc4",
}
XML = """<?xml version="1.0"?>
<net name="segfocal" version="11">
	<layers>
		<layer id="0" name="image" type="Parameter" version="opset1">
			<data shape="?,?,?,1" element_type="f32" />
			<rt_info><attribute name="card" version="0" value="of a layer" /></rt_info>
		</layer>
	</layers>
	<edges />
	<rt_info>
		<info name="OpenVINO Runtime" value="2026.4.1" />
		<segfocal>
			<card value="{&quot;format&quot;:1,&quot;segfocal&quot;:&quot;0.1.0&quot;,&quot;ndim&quot;:2,&quot;channels&quot;:[{&quot;name&quot;:&quot;b\u00fa \\&quot;&lt;nir&gt;\\&quot;&quot;,&quot;mean&quot;:41.5,&quot;std&quot;:312.25,&quot;low&quot;:-1.0,&quot;high&quot;:null}],&quot;named_channels&quot;:true,&quot;valid_when&quot;:&quot;any&quot;,&quot;classes&quot;:[{&quot;value&quot;:4,&quot;name&quot;:&quot;Wald&quot;,&quot;color&quot;:[0,0,0]},{&quot;value&quot;:255,&quot;name&quot;:&quot;sea&quot;,&quot;color&quot;:[1,2,3]}],&quot;tile&quot;:[64,32],&quot;resolution&quot;:null,&quot;orientation&quot;:null}" />
			<output_stride value="32" />
			<output value="probabilities" />
			<model_hash value="64f5000a02508a3a6b967484763f2ef2f892ec84dc8c9b35745b552726018dc4" />
			<weights_hash value="e3b0c442" />
		</segfocal>
	</rt_info>
</net>
"""  # noqa: E501


def varint(number: int) -> bytes:
    more, rest = number >> 7, number & 0x7F
    return bytes([rest | 0x80]) + varint(more) if more else bytes([rest])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_bytes(pairs: dict[str, str]) -> bytes:
    entries = b"".join(
        field(14, field(1, key.encode()) + field(2, value.encode())) for key, value in pairs.items()
    )
    # ir_version, producer, graph, opset import; fixed-width fields of some later release.
    return (
        field(1, 8)
        + field(2, b"segfocal")
        + field(7, b"\x0a\x03abc" + b"\x72" * 300)
        + entries
        + field(8, field(2, 17))
        + varint(90 << 3 | 5)
        + b"\0\0\0\0"
        + varint(91 << 3 | 1)
        + b"\0" * 8
    )


@pytest.fixture
def files(tmp_path):
    (tmp_path / "m.xml").write_text(XML, encoding="utf-8")
    pairs = {f"segfocal.{key}": value for key, value in FACTS.items()}
    (tmp_path / "m.onnx").write_bytes(onnx_bytes({"others": "thing", **pairs}))
    folder = tmp_path / "m"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    (folder / "assets.extra" / "segfocal.json").write_text(json.dumps(FACTS), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "format", "weights"),
    [("m.xml", "openvino", "e3b0c442"), ("m.onnx", "onnx", None), ("m", "saved_model", None)],
)
def test_exports_of_the_first_release_stay_readable(files, name, format, weights):
    card = Card.from_json(json.loads(CARD))
    assert card.channels[0].name == 'b\u00fa "<nir>"'
    facts = read_facts(files / name)
    assert facts == ModelFacts(format, card, 32, "probabilities", FACTS["model_hash"], weights)
    assert read_card(str(files / name)) == card
    assert is_exported_model(files / name)
    assert inspect(files / name) == {
        "kind": "model",
        "path": str(files / name),
        "file_format": format,
        "output": "probabilities",
        "output_stride": 32,
        "model_hash": FACTS["model_hash"],
        "card": json.loads(CARD),
    }


def test_facts_are_written_under_the_keys_they_are_read_from():
    card = Card.from_json(json.loads(CARD))
    facts = ModelFacts("onnx", card, 32, "probabilities", FACTS["model_hash"])
    assert facts.texts() == FACTS
    assert (
        ModelFacts("openvino", card, 32, "probabilities", "a", "b").texts()["weights_hash"] == "b"
    )
    assert json.loads(ModelFacts("onnx", card, 32, work={"encoder": 1.5}).texts()["work"]) == {
        "encoder": 1.5
    }


def test_metadata_of_a_real_file_are_those_that_onnx_reads(exports):
    onnx = pytest.importorskip("onnx")
    path = exports.path("onnx")
    expected = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert read_onnx_metadata(path) == expected
    assert len(expected) == 7
    assert expected["segfocal.global_context"] == "tile"
    assert json.loads(expected["segfocal.work"]).keys() == {"encoder", "decoder"}


def test_a_file_that_is_cut_short_anywhere_is_refused(files, tmp_path):
    for name, step in (("m.onnx", 7), ("m.xml", 41)):
        content = (files / name).read_bytes()
        place = tmp_path / f"cut_{name}"
        for length in range(0, len(content) - 14, step):
            place.write_bytes(content[:length])
            with pytest.raises(ModelError, match=rf"cut_{name}: .*(export|expected)"):
                read_facts(place)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.xml", "<dataset><a/></dataset>", r"XML of something else \(<dataset>\)"),
        ("x.xml", "<net><rt_info><a/></rt_info></net>", r"without a segfocal card"),
        ("x.xml", "<net><rt_info></net>", r"damaged or no OpenVINO model \(mismatched tag"),
        ("x.xml", "II*\0\0\0", r"damaged or no OpenVINO model"),
        ("x.onnx", "", r"no ONNX model"),
        ("x.onnx", "some text", r"damaged or no ONNX model"),
        ("x.onnx", "\xff" * 40, r"damaged or no ONNX model"),
        ("x.xml", XML.replace('"32"', '"thirty"'), r"facts beside its card are damaged"),
        (
            "x.xml",
            XML.replace("<output value", '<work value="[1]" />\n<output value'),
            r"facts beside its card are damaged",
        ),
        ("x.xml", XML.replace('<output_stride value="32" />', ""), r"damaged \('output_stride'\)"),
        ("x.xml", XML.replace('"32"', '"0"'), r"damaged \(output_stride 0\)"),
        ("x.xml", XML.replace("{&quot;format&quot;", "{format"), r"facts beside its card are dam"),
        ("x.xml", XML.replace("format&quot;:1", "format&quot;:9"), r"card format 9; .*update"),
    ],
)
def test_what_holds_no_facts_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=message) as caught:
        read_facts(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_a_foreign_onnx_file_and_saved_model_have_no_card(files):
    (files / "m.onnx").write_bytes(onnx_bytes({"others": "thing"}))
    (files / "m" / "assets.extra" / "segfocal.json").unlink()
    for name in ("m.onnx", "m"):
        with pytest.raises(ModelError, match="a model without a segfocal card"):
            read_card(files / name)


def test_xml_that_gdal_may_open_is_no_model(tmp_path):
    (tmp_path / "MTD.xml").write_text("<n1:Level-1C_User_Product></n1:Level-1C_User_Product>")
    assert not is_exported_model(tmp_path / "MTD.xml")
    assert not is_exported_model(tmp_path / "no.xml")


def test_reading_needs_no_runtime(files):
    code = (
        "import sys\n"
        "from segfocal.card_files import read_card\n"
        "for name in ('m.xml', 'm.onnx', 'm'):\n"
        f"    read_card({str(files)!r} + '/' + name)\n"
        "heavy = {'onnx', 'openvino', 'onnxruntime', 'google', 'keras', 'tensorflow'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
