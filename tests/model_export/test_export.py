"""`alignseg export`: what it writes of a checkpoint's origin and sizes, and what a signal leaves behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from alignseg_serve import cli
from model_export import export
from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from model_export.model_folder import provenance
from model_export.onnx_export import parity
from model_export.onnx_export.serving_module import ServingModule
from tests.model_export.frames import frames


@pytest.mark.parametrize("name", list(provenance.DATASETS))
def test_the_data_option_names_classes_and_claims_no_origin(name: str) -> None:
    count = len(provenance.DATASETS[name].classes)
    origin = provenance.of({}, name, None, count)
    assert (origin.classes, origin.trained_on, origin.terms) == (
        provenance.DATASETS[name].classes,
        "unknown",
        "unknown",
    )


def test_a_recorded_data_set_is_the_origin() -> None:
    origin = provenance.of({"data": "camvid", "train_on": "train", "val_miou": "0.6"}, None, None, 11)
    assert origin.trained_on == "CamVid, SegNet selection, 480x360; split: train"
    assert "non-commercial" in origin.terms
    assert origin.metrics == {"camvid_val_miou_in_training": 0.6}


def test_a_recorded_data_set_stays_the_origin_with_other_class_names(tmp_path: Path) -> None:
    names = tmp_path / "classes.json"
    names.write_text(json.dumps([{"name": f"class {i}", "color": [i, i, i]} for i in range(11)]))
    origin = provenance.of({"data": "camvid"}, None, names, 11)
    assert origin.classes[3].name == "class 3"
    assert "non-commercial" in origin.terms


@pytest.mark.parametrize(
    ("name", "near"), [("cityscape", "cityscapes"), ("CityScape", "cityscapes"), ("ade-20k", "ade20k")]
)  # fmt: skip
def test_a_misspelt_data_set_gets_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"Did you mean --data {near}"):
        provenance.of({}, name, None, 19)


@pytest.mark.parametrize(
    ("recorded", "data", "chosen", "expected"),
    [
        (None, "cityscapes", None, export.BUCKETS["cityscapes"]),
        ("cityscapes", None, None, export.BUCKETS["cityscapes"]),
        (None, "cityscapes", ((129, 257),), ((129, 257),)),
    ],
)  # fmt: skip
def test_sizes_follow_the_data_set_and_are_printed(
    recorded: str | None,
    data: str | None,
    chosen: tuple[tuple[int, int], ...] | None,
    expected: tuple[tuple[int, int], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, folder = tmp_path / "a.safetensors", tmp_path / "model"
    checkpoint.save(path, AlignSeg("lite", 19, channels=8), metadata={"data": recorded} if recorded else {})
    written: list[object] = []

    def write(folder: Path, _network: object, _origin: object, buckets: object, *_: object, **_options: object) -> list:
        written.append(buckets)
        folder.mkdir()
        (folder / "model.onnx").write_bytes(bytes(3 * 2**20))
        return []

    monkeypatch.setattr(export.writer, "write", write)  # the export itself takes minutes at such sizes
    console = Console(record=True, width=200)
    export.run(path, folder, console, data=data, classes=None, frames=None, buckets=chosen, half=False)
    assert written == [expected]
    height, width = expected[0]
    text = console.export_text()
    assert f"sizes     {height}x{width}" in text
    assert f"GFLOP at {height}x{width}; compared with PyTorch" in text
    assert "model.onnx 3.0 MiB; 3.0 MiB in total" in text


def test_parameters_and_operations_are_those_of_the_network() -> None:
    network = AlignSeg("efficientnet-lite0", 11, aux_head=False)
    expected = f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters, 3.3 GFLOP at 369x481"
    assert export.describe(network, (369, 481)).endswith(f"64 channels, 11 classes, {expected}")


def test_each_data_set_has_sizes_of_its_images() -> None:
    assert set(export.BUCKETS) == set(provenance.DATASETS)
    assert export.BUCKETS["cityscapes"][0] == (1025, 2049)
    assert all(side % 16 == 1 for sizes in export.BUCKETS.values() for size in sizes for side in size)


def test_weights_that_overflow_are_not_blamed_on_the_export() -> None:
    network = AlignSeg("lite", 3, channels=8).eval()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 3e38)
    with pytest.raises(parity.ParityError, match="PyTorch itself computes NaN"):
        parity.compare(ServingModule(network), lambda images: pytest.fail("not reached"), frames())


def test_a_checkpoint_of_nan_is_rejected_at_once(tmp_path: Path) -> None:
    network = AlignSeg("lite", 11, channels=8)
    torch.nn.init.constant_(network.head[3].weight, float("nan"))
    checkpoint.save(tmp_path / "a.safetensors", network)
    command = ["export", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "model"), "--data", "camvid"]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == cli.USAGE_ERROR
    assert "head.3.weight: 88 of 88 values are NaN" in " ".join(result.output.split())


def test_sigterm_leaves_no_temporary_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, AlignSeg("lite", 11, channels=8))
    command = [sys.executable, "-m", "alignseg_serve", "export", str(path), "-o", str(tmp_path / "out" / "model"), "--data", "camvid"]  # fmt: skip  # noqa: E501
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603
        while not list((tmp_path / "out").glob(".model.*/model.safetensors")) and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    assert process.returncode == 128 + signal.SIGTERM
    assert list((tmp_path / "out").iterdir()) == []
