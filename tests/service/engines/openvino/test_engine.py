"""OpenVINO against ONNX Runtime on the shipped model: two implementations of the same nodes."""

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
from service.web import SCENE
from tests.support import tiny_model

pytest.importorskip("openvino", reason="openvino is not installed: pip install -e '.[cpu]'")
from service.engines.openvino import quantization
from service.engines.openvino.engine import OpenVinoEngine, features
from service.engines.reference_check import ReferenceCheck

FOLDER = REPOSITORY / "weights" / "alignseg-lite"


@pytest.fixture(scope="module")
def shipped() -> Path:
    return manifests.verified_file(FOLDER, manifests.load(FOLDER), ROLE)


@pytest.fixture(scope="module")
def scene() -> UInt8Array:
    return decode(SCENE.read_bytes(), max_pixels=10**6)


def test_class_maps_and_confidence_agree_at_any_size(shipped: Path, scene: UInt8Array) -> None:
    openvino, reference = OpenVinoEngine(shipped), OnnxRuntimeEngine(shipped)
    for batch in (scene[None], np.stack([scene[:131, :97], scene[-131:, -97:]])):
        actual, expected = (engine.infer(batch, with_confidence=True) for engine in (openvino, reference))
        assert (actual.ids == expected.ids).mean() >= 0.9999
        assert actual.confidence is not None
        assert expected.confidence is not None
        assert np.abs(actual.confidence.astype(int) - expected.confidence).max() <= 1


def test_a_class_map_survives_the_next_image(shipped: Path, scene: UInt8Array) -> None:
    engine = OpenVinoEngine(shipped)
    first = engine.infer(scene[None]).ids
    kept = first.copy()
    engine.infer(np.ascontiguousarray(scene[None, :200, ::-1]))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.skipif(not features().bfloat16, reason="this processor does not compute in bfloat16")
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_lower_precision_changes_few_pixels(shipped: Path, scene: UInt8Array, precision: Any) -> None:
    """Sampling positions in bfloat16 would change twenty times as many pixels (5 %, when they were)."""
    ranges = quantization.load(FOLDER / "int8.json")
    engine = OpenVinoEngine(shipped, precision=precision, ranges=ranges, sizes=[scene.shape[:2]])
    actual = engine.infer(scene[None], with_confidence=True)
    expected = OnnxRuntimeEngine(shipped).infer(scene[None], with_confidence=True)
    assert engine.name == f"openvino-{precision}"
    assert (actual.ids == expected.ids).mean() >= {"bf16": 0.99, "int8": 0.98}[precision]
    assert actual.confidence is not None
    assert expected.confidence is not None
    assert np.abs(actual.confidence.astype(int) - expected.confidence).mean() <= {"bf16": 1, "int8": 4}[precision]


def test_offsets_that_point_outside_the_image_read_zeros(tmp_path: Path) -> None:
    """A single node against ONNX Runtime: offsets inside the image, across its edges and far outside."""
    from model_export.onnx_export import custom_ops

    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 6, (2, 4, 9, 13)).astype(np.float32)
    offsets[:, :, ::4] *= 1e5
    for sampling in ("standard", "published"):
        path = tmp_path / f"{sampling}.onnx"
        onnx.save(one_node(custom_ops.aggregate(sampling), sampling, offsets), path)
        picture = rng.integers(0, 256, (2, 9, 13, 3), dtype=np.uint8)
        actual, expected = (engine(path).infer(picture).ids for engine in (OpenVinoEngine, OnnxRuntimeEngine))
        assert np.abs(actual.astype(int) - expected).max() <= 1  # a value halfway between two
        assert (actual == expected).mean() > 0.99


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


def test_compiled_models_are_cached(shipped: Path, scene: UInt8Array, tmp_path: Path) -> None:
    cache, sizes = tmp_path / "cache", [(96, 128), (128, 96), (64, 64)]
    small = np.ascontiguousarray(scene[None, :96, :128])
    first = OpenVinoEngine(shipped, sizes=sizes, cache=cache)
    ids = first.infer(small).ids
    assert len(list(cache.iterdir())) == 3
    second = OpenVinoEngine(shipped, sizes=sizes, cache=cache)
    second._read = None  # type: ignore[assignment,method-assign]  # would fail: nothing has to be compiled
    np.testing.assert_array_equal(second.infer(small).ids, ids)
    for height, width in (*sizes, *sizes):  # idle ones have freed their memory, and allocate it again
        assert second.infer(np.zeros((1, height, width, 3), np.uint8)).ids.shape == (1, height, width)
    np.testing.assert_array_equal(second.infer(small).ids, ids)


def test_the_threads_signal_stack_stays(shipped: Path, scene: UInt8Array, tmp_path: Path) -> None:
    """OpenVINO would free its own with the model, and the next signal would end the process."""

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


def test_a_damaged_or_unwritable_cache_is_no_error(shipped: Path, scene: UInt8Array, tmp_path: Path) -> None:
    small = np.ascontiguousarray(scene[None, :96, :128])
    expected = OpenVinoEngine(shipped, sizes=[(96, 128)], cache=tmp_path).infer(small).ids
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])  # as on a full disk
    np.testing.assert_array_equal(OpenVinoEngine(shipped, sizes=[(96, 128)], cache=tmp_path).infer(small).ids, expected)
    (kept,) = tmp_path.iterdir()
    content = kept.read_bytes()
    for at in (10, len(content) // 2, len(content) - 10_000):  # as by a failing disk; weights are at the end
        damaged = content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]
        kept.write_bytes(damaged)
        engine = OpenVinoEngine(shipped, sizes=[(96, 128)], cache=tmp_path)
        np.testing.assert_array_equal(engine.infer(small).ids, expected)
        assert kept.read_bytes() != damaged  # compiled again
    (tmp_path / "file").write_text("no folder")
    again = OpenVinoEngine(shipped, sizes=[(96, 128)], cache=tmp_path / "file" / "below")
    np.testing.assert_array_equal(again.infer(small).ids, expected)


def test_an_engine_that_disagrees_with_the_reference_is_rejected(shipped: Path) -> None:
    engine = OpenVinoEngine(shipped)
    check = ReferenceCheck.from_reference(OnnxRuntimeEngine(shipped), (96, 128))
    check.require_agreement(engine)
    with pytest.raises(EngineUnavailable, match=r"0\.\d+% of the pixels .* agree .*expected at least 99\.9%"):
        check._replace(ids=check.ids + np.uint8(1)).require_agreement(engine)


def test_the_shipped_reference_check_is_the_references_output(shipped: Path) -> None:
    stored = ReferenceCheck.load(FOLDER / "self_test.npz")
    computed = ReferenceCheck.from_reference(OnnxRuntimeEngine(shipped), manifests.load(FOLDER).input.buckets[0])
    np.testing.assert_array_equal(stored.image, computed.image)
    assert (stored.ids == computed.ids).mean() > 0.9999  # another processor adds up in another order


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "picture is not a file"),
        ({"picture": np.zeros((1, 4, 4, 3), np.uint8), "ids": np.zeros((4, 4), np.uint8)}, r"ids of \(4, 4\) uint8"),
        ({"picture": np.zeros((1, 4, 4, 3), np.uint8), "ids": np.zeros((1, 4, 4), np.int64)}, "int64"),
        ({"picture": np.array([{}]), "ids": np.zeros((1, 4, 4), np.uint8)}, "allow_pickle"),
    ],
)
def test_a_file_that_is_no_reference_check_is_rejected(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "self_test.npz", **arrays)
    with pytest.raises(ManifestError, match=message):
        ReferenceCheck.load(tmp_path / "self_test.npz")
    (tmp_path / "self_test.npz").write_bytes(b"PK no archive")
    with pytest.raises(ManifestError, match="is not a reference check"):
        ReferenceCheck.load(tmp_path / "self_test.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not JSON", "no int8 ranges"),
        ("{}", "it is empty"),
        ('{"a": [1, 0]}', "minimum above its maximum"),
        ("[]", "no int8 ranges"),
    ],
)
def test_a_file_without_ranges_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "int8.json").write_text(text)
    with pytest.raises(ManifestError, match=message):
        quantization.load(tmp_path / "int8.json")


def test_a_range_has_zero_on_a_step() -> None:
    for low, high in ((0.0, 5.0), (-1.0, 3.0), (-0.01, 7.0), (-9.0, 0.0), (2.0, 3.0)):
        smallest, largest = quantization.with_zero(low, high)
        assert smallest <= low + 1e-9
        assert largest >= high - 1e-9
        step = (largest - smallest) / 255
        assert smallest / step == pytest.approx(round(smallest / step), abs=1e-6)


def test_the_published_sampling_convention(tmp_path: Path, scene: UInt8Array) -> None:
    """The shipped weights under the other convention: not a good network, but both must compute the same."""
    from model_export.onnx_export import custom_ops

    model = onnx.load(FOLDER / "model.onnx")
    del model.functions[:]
    custom_ops.attach_bodies(model, "published")
    for node in model.graph.node:
        if node.domain == custom_ops.DOMAIN:
            node.attribute[0].s = b"published"
    onnx.save(model, tmp_path / "m.onnx")
    batch = np.ascontiguousarray(scene[None, :200, :260])
    actual, expected = (engine(tmp_path / "m.onnx").infer(batch).ids for engine in (OpenVinoEngine, OnnxRuntimeEngine))
    assert (actual == expected).mean() >= 0.9995


def test_other_models_are_rejected(tmp_path: Path) -> None:
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
