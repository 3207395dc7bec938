"""Evaluation of a network, an engine and a server."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from alignseg_serve.cli import app
from alignseg_serve.segmentation.segmenter import Segmenter
from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from service.settings import Settings
from service.types import Inference
from tests.support.fake_engine import BUCKETS, FakeEngine, manifest, striped
from tests.support.live_server import live
from tests.training import tiny_data
from training.data.datasets import CAMVID, IGNORED
from training.evaluate import main
from training.evaluation.measure import evaluate
from training.evaluation.predictors import PredictionError, with_engine, with_network, with_server


@pytest.fixture
def root(tmp_path):
    return tiny_data.camvid(tmp_path / "camvid")


def brightness_bands(picture):
    """In place of a network: the class is the brightness, in 11 bands."""
    return (picture[..., 0].astype(int) * 11 // 256).astype(np.uint8)


def test_a_perfect_predictor_has_an_miou_of_one(root):
    pairs = CAMVID.pairs(root, "val")
    answers = iter([CAMVID.read(pair)[1] for pair in pairs])
    perfect = evaluate(lambda _: np.where((a := next(answers)) == IGNORED, 0, a).astype(np.uint8), CAMVID, pairs)
    assert perfect.miou == perfect.accuracy == 1.0


def test_a_network_predicts_at_the_size_of_the_image():
    torch.manual_seed(0)
    network = AlignSeg("lite", 11, channels=8)
    picture = np.random.default_rng(0).integers(0, 256, (50, 67, 3), np.uint8)
    ids = with_network(network)(picture)
    assert ids.shape == (50, 67)
    assert ids.dtype == np.uint8
    assert not network.training


def test_an_engine_predicts_through_its_bucket():
    class Engine:
        name, max_batch, has_confidence = "bands", 1, False

        def infer(self, batch, with_confidence=False):
            assert batch.shape == (1, 32, 32, 3)
            return Inference(brightness_bands(batch))

        def close(self):
            pass

    picture = np.full((16, 12, 3), 200, np.uint8)
    assert (with_engine(Engine(), [(32, 32)])(picture) == 8).all()
    assert with_engine(Engine(), [(32, 32)])(picture).shape == (16, 12)


def test_an_engine_predicts_a_panorama_in_tiles_as_a_server_does():
    engine = FakeEngine()
    ids = with_engine(engine, BUCKETS)(striped(24, 240))
    segmenter = Segmenter.from_engine(manifest(), FakeEngine(), Settings())
    np.testing.assert_array_equal(ids, segmenter.segment(striped(24, 240)).mask)
    assert len(engine.batches) > 1


class BrightnessEngine(FakeEngine):
    """An engine of 11 classes whose prediction is known."""

    def infer(self, batch, with_confidence=False):
        return Inference(brightness_bands(batch))


@contextmanager
def brightness_server(**settings):
    """A real server of that engine, whose bucket is the size of the test images: nothing is resized."""
    classes = {
        "classes": CAMVID.classes,
        "architecture": manifest().architecture.model_copy(update={"num_classes": 11}),
    }
    model = manifest((tiny_data.SIZE,)).model_copy(update=classes)
    with live(BrightnessEngine(), model, **settings) as url:
        yield url


def test_a_server_is_measured_over_http(root, tmp_path, capsys, monkeypatch):
    path = tmp_path / "served.json"
    monkeypatch.setenv("ALIGNSEG_API_KEY", "secret")
    with brightness_server(api_keys="secret") as url:
        assert main(["--server", url, "--root", str(root), "--split", "train", "--json", str(path)]) == 0
    metrics = json.loads(path.read_text())
    direct = evaluate(brightness_bands, CAMVID, CAMVID.pairs(root, "train"))
    assert metrics["confusion"] == direct.counts.tolist()
    assert metrics["miou"] == pytest.approx(direct.miou, abs=1e-5)
    assert metrics["pictures"] == 4
    assert "mIoU" in capsys.readouterr().out


def test_errors_of_a_server_are_reported(root, capsys):
    with brightness_server(api_keys="secret", max_pixels=100) as url:
        with with_server(url, "secret") as predict, pytest.raises(PredictionError, match=r"20 x 10"):
            predict(np.zeros((10, 20, 3), np.uint8))
        assert main(["--server", url, "--root", str(root)]) == 1
    assert "API key" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected a URL"), with_server("localhost:8000"):
        pass


def test_without_httpx_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "alignseg_serve.client", None)
    with pytest.raises(PredictionError, match=r"pip install -e '\.\[client\]'"), with_server("http://localhost:8000"):
        pass


def test_a_checkpoint_from_the_command_line(root, tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, AlignSeg("lite", 11, channels=8))
    assert main(["--checkpoint", str(path), "--root", str(root), "--limit", "1"]) == 0
    assert "bicyclist" in capsys.readouterr().out
    checkpoint.save(path, AlignSeg("lite", 5, channels=8))
    assert main(["--checkpoint", str(path), "--root", str(root)]) == 1
    assert "has 5 classes; expected 11" in capsys.readouterr().err


def test_metrics_and_confusion_matrix_are_written(root, tmp_path):
    path, drawn, kept = tmp_path / "x.safetensors", tmp_path / "confusion.png", tmp_path / "metrics.json"
    checkpoint.save(path, AlignSeg("lite", 11, channels=8))
    flags = ["--tile", "32x32", "--scales", "1,1.5", "--flip", "--average", "probabilities", "--boundary", "2"]
    written = ["--figure", str(drawn), "--json", str(kept)]
    assert main(["--checkpoint", str(path), "--root", str(root), "--limit", "1", *flags, *written]) == 0
    metrics = json.loads(kept.read_text())
    assert metrics["measured"].endswith("with PyTorch, tiles of 32x32, scales 1 1.5, mirror images")
    assert 0 <= metrics["boundary_f"] <= 1
    assert metrics["boundary_tolerance_px"] == 2
    assert len(metrics["boundary_f_by_class"]) == 11
    with Image.open(drawn) as picture:
        assert min(picture.size) > 500


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--server", "http://x", "--flip"], "mirror images: only PyTorch supports tiles, scales and mirror images"),
        (["--model", "x", "--tile", "64x64"], "use --engine pytorch"),
        (["--checkpoint", "x", "--tile", "64"], "--tile: got '64'; expected HxW"),
        (["--checkpoint", "x", "--scales", "half"], "--scales: got 'half'; expected numbers"),
    ],
)
def test_invalid_inference_modes_are_errors(flags, message, root, capsys):
    assert main([*flags, "--root", str(root)]) == 1
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_without_root_the_usual_folders_are_searched(tmp_path, monkeypatch, capsys):
    tiny_data.camvid(tmp_path / "data" / "camvid")
    checkpoint.save(tmp_path / "x.safetensors", AlignSeg("lite", 11, channels=8))
    monkeypatch.chdir(tmp_path)
    assert main(["--checkpoint", "x.safetensors", "--limit", "1"]) == 0
    assert main(["--checkpoint", "x.safetensors", "--data", "cityscapes"]) == 1
    assert "data/cityscapes/gtFine" in capsys.readouterr().err.replace("\n", "")


def test_errors_have_no_traceback(root, tmp_path, capsys):
    assert main(["--checkpoint", str(tmp_path / "none"), "--root", str(root)]) == 1
    assert main(["--model", str(tmp_path), "--root", str(root)]) == 1
    assert main(["--server", "http://127.0.0.1:1", "--root", str(root)]) == 1
    assert capsys.readouterr().err.count("error:") == 3


def test_the_alignseg_command_forwards_its_options(root, tmp_path):
    checkpoint.save(tmp_path / "x.safetensors", AlignSeg("lite", 11, channels=8))
    flags = ["evaluate", "--checkpoint", str(tmp_path / "x.safetensors"), "--root", str(root), "--limit", "1"]
    measured = CliRunner().invoke(app, flags)
    assert measured.exit_code == 0
    assert "boundary F" in measured.stdout
    helped = CliRunner().invoke(app, ["evaluate", "--help"])
    assert "alignseg evaluate --model weights/alignseg-lite" in helped.stdout
    assert CliRunner().invoke(app, ["offsets"]).exit_code == 2


def test_the_shipped_model_is_measured_with_pytorch_and_with_an_engine(root, tmp_path):
    model = Path(__file__).parents[2] / "weights" / "alignseg-lite"
    metrics = []
    for engine in ("pytorch", "onnxruntime-cpu"):
        path = tmp_path / f"{engine}.json"
        flags = ["--engine", engine, "--root", str(root), "--limit", "1", "--json", str(path)]
        assert main(["--model", str(model), *flags]) == 0
        metrics.append(json.loads(path.read_text()))
    assert metrics[0]["measured"] == f"{model} with PyTorch, whole images"
    assert metrics[1]["measured"] == f"{model} with onnxruntime-cpu"


def test_a_measurement_without_labelled_pixels_is_valid_json(root, tmp_path):
    for path in (root / "val" / "labels").iterdir():
        tiny_data.write(path, np.full(tiny_data.SIZE, 11, np.uint8))
    checkpoint.save(tmp_path / "n.safetensors", AlignSeg("lite", 11, channels=8))
    output = tmp_path / "metrics.json"
    arguments = ["--checkpoint", str(tmp_path / "n.safetensors"), "--root", str(root), "--json", str(output)]
    assert main([*arguments, "--figure", str(tmp_path / "confusion.png")]) == 0
    metrics = json.loads(output.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert metrics["miou"] is metrics["pixel_accuracy"] is metrics["boundary_f"] is None


@pytest.mark.parametrize(
    ("option", "value"), [("--limit", "0"), ("--limit", "-1"), ("--boundary", "nan"), ("--boundary", "-1")]
)
def test_numbers_that_measure_nothing_are_rejected(option, value, capsys):
    with pytest.raises(SystemExit):
        main(["--model", "x", f"{option}={value}"])
    assert f"argument {option}: got '{value}', expected a number" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--figure"])
def test_an_output_that_cannot_be_written_is_reported_before_the_measurement(option, root, tmp_path, capsys):
    assert main(["--model", "no/such/model", "--root", str(root), option, str(tmp_path / "no" / "file")]) == 1
    assert f"{option}: {tmp_path / 'no' / 'file'} can't be written" in " ".join(capsys.readouterr().err.split())
