"""OpenVINO against ONNX Runtime on the shipped model: two lowerings of the same nodes."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from service.engines.onnxruntime.engine import ROLE, OnnxRuntimeEngine
from service.errors import EngineError, EngineUnavailable, ManifestError
from service.imaging.decode import decode
from service.model_folder import manifest as manifests
from service.settings import REPOSITORY
from service.types import UInt8Array
from tests.support import tiny_model

pytest.importorskip("openvino", reason="openvino is not installed: pip install -e '.[cpu]'")
from service.engines.openvino import quantization
from service.engines.openvino.engine import OpenVinoEngine, computes_bf16
from service.engines.reference_check import SelfTest

FOLDER = REPOSITORY / "weights" / "alignseg-lite"


@pytest.fixture(scope="module")
def shipped() -> Path:
    return manifests.verified_file(FOLDER, manifests.load(FOLDER), ROLE)


@pytest.fixture(scope="module")
def scene() -> UInt8Array:
    return decode((REPOSITORY / "service" / "web" / "scene.jpg").read_bytes(), max_pixels=10**6)


def test_masks_and_confidence_agree_at_any_size(shipped: Path, scene: UInt8Array) -> None:
    openvino, reference = OpenVinoEngine(shipped), OnnxRuntimeEngine(shipped)
    for batch in (scene[None], np.stack([scene[:131, :97], scene[-131:, -97:]])):
        got, expected = (engine.infer(batch, with_confidence=True) for engine in (openvino, reference))
        assert (got.ids == expected.ids).mean() >= 0.9999
        assert got.confidence is not None
        assert expected.confidence is not None
        assert np.abs(got.confidence.astype(int) - expected.confidence).max() <= 1


def test_an_answer_survives_the_next_picture(shipped: Path, scene: UInt8Array) -> None:
    engine = OpenVinoEngine(shipped)
    first = engine.infer(scene[None]).ids
    kept = first.copy()
    engine.infer(np.ascontiguousarray(scene[None, :200, ::-1]))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.skipif(not computes_bf16(), reason="this processor does not compute in bfloat16")
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_fewer_digits_cost_few_pixels_and_no_position(shipped: Path, scene: UInt8Array, precision: Any) -> None:
    """Positions of bfloat16 would cost twenty times as many pixels (5 % of them, when they were)."""
    ranges = quantization.load(FOLDER / "int8.json")
    engine = OpenVinoEngine(shipped, precision=precision, ranges=ranges, sizes=[scene.shape[:2]])
    got = engine.infer(scene[None], with_confidence=True)
    expected = OnnxRuntimeEngine(shipped).infer(scene[None], with_confidence=True)
    assert engine.name == f"openvino-{precision}"
    assert (got.ids == expected.ids).mean() >= {"bf16": 0.997, "int8": 0.985}[precision]
    assert got.confidence is not None
    assert expected.confidence is not None
    assert np.abs(got.confidence.astype(int) - expected.confidence).mean() <= {"bf16": 1, "int8": 4}[precision]


def test_offsets_that_lead_out_of_the_picture_read_zeros(tmp_path: Path) -> None:
    """One node alone, against ONNX Runtime: offsets within, across the edges, and far beyond them."""
    from model_export.onnx_export import custom_ops

    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 6, (2, 4, 9, 13)).astype(np.float32)
    offsets[:, :, ::4] *= 1e5
    for sampling in ("standard", "published"):
        path = tmp_path / f"{sampling}.onnx"
        onnx.save(one_node(custom_ops.aggregate(sampling), sampling, offsets), path)
        picture = rng.integers(0, 256, (2, 9, 13, 3), dtype=np.uint8)
        got, expected = (engine(path).infer(picture).ids for engine in (OpenVinoEngine, OnnxRuntimeEngine))
        assert np.abs(got.astype(int) - expected).max() <= 1  # a value that lies on the edge of two
        assert (got == expected).mean() > 0.99


def one_node(body: onnx.FunctionProto, sampling: str, offsets: npt.NDArray[np.float32]) -> onnx.ModelProto:
    """pictures -> AlignedAggregate(pictures, half the pictures, offsets) -> class_map of their green."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Cast", ["pictures"], ["floats"], to=1),
        helper.make_node("Transpose", ["floats"], ["low"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["low"], ["high"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node(
            "AlignedAggregate", ["low", "high", "offsets"], ["sum"], domain=body.domain, sampling=sampling
        ),
        helper.make_node("Mul", ["sum", "half"], ["mean"]),
        helper.make_node("Gather", ["mean", "green"], ["one"], axis=1),
        helper.make_node("Cast", ["one"], ["class_map"], to=2),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("pictures", 2, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("class_map", 2, ["N", "H", "W"])],
        [
            onnx.numpy_helper.from_array(offsets, "offsets"),
            onnx.numpy_helper.from_array(np.array(0.5, np.float32), "half"),
            onnx.numpy_helper.from_array(np.array(1), "green"),
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(body.domain, 1)]
    return helper.make_model(graph, functions=[body], opset_imports=opsets, ir_version=9)


def test_what_was_compiled_is_kept(shipped: Path, scene: UInt8Array, tmp_path: Path) -> None:
    cache, sizes = tmp_path / "cache", [(96, 128), (128, 96), (64, 64)]
    small = np.ascontiguousarray(scene[None, :96, :128])
    first = OpenVinoEngine(shipped, sizes=sizes, cache=cache)
    ids = first.infer(small).ids
    assert len(list(cache.iterdir())) == 3
    second = OpenVinoEngine(shipped, sizes=sizes, cache=cache)
    second._read = None  # type: ignore[assignment,method-assign]  # would fail: nothing is left to compile
    np.testing.assert_array_equal(second.infer(small).ids, ids)
    for height, width in (*sizes, *sizes):  # idle ones have given their memory back, and take it again
        assert second.infer(np.zeros((1, height, width, 3), np.uint8)).ids.shape == (1, height, width)
    np.testing.assert_array_equal(second.infer(small).ids, ids)


def test_signals_keep_their_stack(shipped: Path, scene: UInt8Array, tmp_path: Path) -> None:
    """OpenVINO's own would be gone with the model, and the next signal would end the process."""

    class Stack(ctypes.Structure):
        _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    def current() -> tuple[int | None, int, int]:
        stack = Stack()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
        return stack.start, stack.flags, stack.size

    before = current()
    for _ in range(2):  # compiled, and from the cache
        engine = OpenVinoEngine(shipped, sizes=[(64, 64)], cache=tmp_path)
        engine.infer(np.ascontiguousarray(scene[None, :96, :96]))
        assert current() == before


def test_a_cache_that_is_of_no_use_is_no_error(shipped: Path, scene: UInt8Array, tmp_path: Path) -> None:
    small = np.ascontiguousarray(scene[None, :96, :128])
    expected = OpenVinoEngine(shipped, sizes=[(96, 128)], cache=tmp_path).infer(small).ids
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])  # as a full disk leaves it
    np.testing.assert_array_equal(OpenVinoEngine(shipped, sizes=[(96, 128)], cache=tmp_path).infer(small).ids, expected)
    (tmp_path / "file").write_text("no folder")
    again = OpenVinoEngine(shipped, sizes=[(96, 128)], cache=tmp_path / "file" / "below")
    np.testing.assert_array_equal(again.infer(small).ids, expected)


def test_an_engine_that_sees_otherwise_is_refused(shipped: Path) -> None:
    engine = OpenVinoEngine(shipped)
    test = SelfTest.ask(OnnxRuntimeEngine(shipped), (96, 128))
    test.require_agreement(engine)
    with pytest.raises(EngineUnavailable, match=r"0\.\d+% of its pixels agree .*expected 99\.9%"):
        test._replace(ids=test.ids + np.uint8(1)).require_agreement(engine)


def test_the_shipped_answer_is_the_references(shipped: Path) -> None:
    kept = SelfTest.load(FOLDER / "self_test.npz")
    asked = SelfTest.ask(OnnxRuntimeEngine(shipped), manifests.load(FOLDER).input.buckets[0])
    np.testing.assert_array_equal(kept.picture, asked.picture)
    assert (kept.ids == asked.ids).mean() > 0.9999  # another processor adds up in another order


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "picture is not a file"),
        ({"picture": np.zeros((1, 4, 4, 3), np.uint8), "ids": np.zeros((4, 4), np.uint8)}, r"ids of \(4, 4\) uint8"),
        ({"picture": np.zeros((1, 4, 4, 3), np.uint8), "ids": np.zeros((1, 4, 4), np.int64)}, "int64"),
        ({"picture": np.array([{}]), "ids": np.zeros((1, 4, 4), np.uint8)}, "allow_pickle"),
    ],
)
def test_self_tests_that_are_none(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "self_test.npz", **arrays)
    with pytest.raises(ManifestError, match=message):
        SelfTest.load(tmp_path / "self_test.npz")
    (tmp_path / "self_test.npz").write_bytes(b"PK no archive")
    with pytest.raises(ManifestError, match="is no self-test"):
        SelfTest.load(tmp_path / "self_test.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [("not JSON", "no ranges"), ("{}", "no ranges"), ('{"a": [1, 0]}', "no ranges"), ("[]", "no ranges")],
)
def test_ranges_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "int8.json").write_text(text)
    with pytest.raises(ManifestError, match=message):
        quantization.load(tmp_path / "int8.json")


def test_a_range_has_zero_on_a_step() -> None:
    for low, high in ((0.0, 5.0), (-1.0, 3.0), (-0.01, 7.0), (-9.0, 0.0), (2.0, 3.0)):
        least, greatest = quantization.with_zero(low, high)
        assert least <= low + 1e-9
        assert greatest >= high - 1e-9
        step = (greatest - least) / 255
        assert least / step == pytest.approx(round(least / step), abs=1e-6)


def test_the_published_sampling(tmp_path: Path, scene: UInt8Array) -> None:
    """The shipped weights under the other convention: not a good network, but one that both must compute alike."""
    from model_export.onnx_export import custom_ops

    model = onnx.load(FOLDER / "model.onnx")
    del model.functions[:]
    custom_ops.attach_bodies(model, "published")
    for node in model.graph.node:
        if node.domain == custom_ops.DOMAIN:
            node.attribute[0].s = b"published"
    onnx.save(model, tmp_path / "m.onnx")
    batch = np.ascontiguousarray(scene[None, :200, :260])
    got, expected = (engine(tmp_path / "m.onnx").infer(batch).ids for engine in (OpenVinoEngine, OnnxRuntimeEngine))
    assert (got == expected).mean() >= 0.9995


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "not.onnx").write_bytes(b"not a model")
    with pytest.raises(ManifestError, match="can't load"):
        OpenVinoEngine(tmp_path / "not.onnx")
    onnx.save(tiny_model.strongest_color(), tmp_path / "m.onnx")
    engine = OpenVinoEngine(tmp_path / "m.onnx")
    with pytest.raises(EngineError, match="no logits"):
        engine.infer(np.zeros((1, 4, 6, 3), np.uint8), with_confidence=True)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(np.zeros((1, 4, 6, 3), np.uint8))
