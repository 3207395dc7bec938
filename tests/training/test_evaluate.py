"""One evaluation, whatever predicts: a network, an engine, a server."""

import http.server
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from alignseg_serve.cli import app
from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from service.types import Inference
from tests.training import tiny_data
from training.data.datasets import CAMVID, IGNORED
from training.evaluate import main
from training.evaluation.measure import evaluate
from training.evaluation.predictors import PredictionError, with_engine, with_network, with_server


@pytest.fixture
def root(tmp_path):
    return tiny_data.camvid(tmp_path / "camvid")


def brightness_bands(picture):
    """A stand-in for a network: the class is the brightness, in 11 bands."""
    return (picture[..., 0].astype(int) * 11 // 256).astype(np.uint8)


def test_a_predictor_that_knows_the_labels_scores_one(root):
    pairs = CAMVID.pairs(root, "val")
    answers = iter([CAMVID.read(pair)[1] for pair in pairs])
    perfect = evaluate(lambda _: np.where((a := next(answers)) == IGNORED, 0, a).astype(np.uint8), CAMVID, pairs)
    assert perfect.miou == perfect.accuracy == 1.0


def test_a_network_predicts_at_the_pictures_own_size():
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


class Handler(http.server.BaseHTTPRequestHandler):
    """POST /segment as the service answers it; a picture that is 1 pixel high is refused."""

    def do_POST(self):
        with Image.open(io.BytesIO(self.rfile.read(int(self.headers["Content-Length"])))) as opened:
            picture = np.asarray(opened.convert("RGB"))
        self.server.keys_seen.append(self.headers["Authorization"])
        good = self.path == "/segment" and self.headers["Accept"] == "image/png" and len(picture) > 1
        buffer = io.BytesIO()
        mask = Image.fromarray(brightness_bands(picture)).convert("P")
        mask.save(buffer, "PNG")
        self.send_response(200 if good else 422)
        self.end_headers()
        self.wfile.write(buffer.getvalue() if good else b'{"detail": "too flat"}')

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.keys_seen = []
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def url_of(server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_a_server_is_measured_over_http(root, server, tmp_path, capsys, monkeypatch):
    path = tmp_path / "served.json"
    monkeypatch.setenv("ALIGNSEG_API_KEY", "secret")
    assert main(["--server", url_of(server), "--root", str(root), "--split", "train", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    direct = evaluate(brightness_bands, CAMVID, CAMVID.pairs(root, "train"))
    assert figures["confusion"] == direct.counts.tolist()
    assert figures["miou"] == pytest.approx(direct.miou, abs=1e-5)
    assert figures["pictures"] == 4
    assert server.keys_seen == ["Bearer secret"] * 4
    assert "mIoU" in capsys.readouterr().out


def test_what_a_server_refuses_is_told(server):
    with pytest.raises(PredictionError, match=r"answered 422.*too flat"):
        with_server(url_of(server))(np.zeros((1, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="expected a URL"):
        with_server("localhost:8000")


def test_a_checkpoint_from_the_command_line(root, tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, AlignSeg("lite", 11, channels=8))
    assert main(["--checkpoint", str(path), "--root", str(root), "--limit", "1"]) == 0
    assert "bicyclist" in capsys.readouterr().out
    checkpoint.save(path, AlignSeg("lite", 5, channels=8))
    assert main(["--checkpoint", str(path), "--root", str(root)]) == 1
    assert "tells 5 classes apart, expected 11" in capsys.readouterr().err


def test_the_figures_and_the_picture_of_the_confusions(root, tmp_path):
    path, drawn, kept = tmp_path / "x.safetensors", tmp_path / "confusion.png", tmp_path / "figures.json"
    checkpoint.save(path, AlignSeg("lite", 11, channels=8))
    flags = ["--tile", "32x32", "--scales", "1,1.5", "--flip", "--average", "probabilities", "--boundary", "2"]
    written = ["--figure", str(drawn), "--json", str(kept)]
    assert main(["--checkpoint", str(path), "--root", str(root), "--limit", "1", *flags, *written]) == 0
    figures = json.loads(kept.read_text())
    assert figures["measured"].endswith("through PyTorch, tiles of 32x32, scales 1 1.5, mirrored too")
    assert 0 <= figures["boundary_f"] <= 1
    assert figures["boundary_tolerance_px"] == 2
    assert len(figures["boundary_f_by_class"]) == 11
    with Image.open(drawn) as picture:
        assert min(picture.size) > 500


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--server", "http://x", "--flip"], "mirrored too: tiles, scales and mirror images need the logits"),
        (["--model", "x", "--tile", "64x64"], "give --engine pytorch"),
        (["--checkpoint", "x", "--tile", "64"], "tile: got '64', expected HxW"),
        (["--checkpoint", "x", "--scales", "half"], "scales: got 'half', expected numbers"),
    ],
)
def test_ways_to_look_that_cannot_be_taken_are_told(flags, told, root, capsys):
    assert main([*flags, "--root", str(root)]) == 1
    assert told in capsys.readouterr().err.replace("\n", " ")


def test_without_a_root_the_data_set_is_looked_for_where_it_is_likely_to_lie(tmp_path, monkeypatch, capsys):
    tiny_data.camvid(tmp_path / "data" / "camvid")
    checkpoint.save(tmp_path / "x.safetensors", AlignSeg("lite", 11, channels=8))
    monkeypatch.chdir(tmp_path)
    assert main(["--checkpoint", "x.safetensors", "--limit", "1"]) == 0
    assert main(["--checkpoint", "x.safetensors", "--data", "cityscapes"]) == 1
    assert "data/cityscapes/gtFine" in capsys.readouterr().err.replace("\n", "")


def test_mistakes_are_told_without_a_traceback(root, tmp_path, capsys):
    assert main(["--checkpoint", str(tmp_path / "none"), "--root", str(root)]) == 1
    assert main(["--model", str(tmp_path), "--root", str(root)]) == 1
    assert main(["--server", "http://127.0.0.1:1", "--root", str(root)]) == 1
    assert capsys.readouterr().err.count("error:") == 3


def test_the_alignseg_command_passes_its_flags_on(root, tmp_path):
    checkpoint.save(tmp_path / "x.safetensors", AlignSeg("lite", 11, channels=8))
    flags = ["evaluate", "--checkpoint", str(tmp_path / "x.safetensors"), "--root", str(root), "--limit", "1"]
    measured = CliRunner().invoke(app, flags)
    assert measured.exit_code == 0
    assert "boundary F" in measured.stdout
    helped = CliRunner().invoke(app, ["evaluate", "--help"])
    assert "alignseg evaluate --model weights/alignseg-lite" in helped.stdout
    assert CliRunner().invoke(app, ["offsets"]).exit_code == 2


def test_the_shipped_folder_is_measured_through_pytorch_and_through_its_engine(root, tmp_path):
    model = Path(__file__).parents[2] / "weights" / "alignseg-lite"
    figures = []
    for engine in ("pytorch", "onnxruntime-cpu"):
        path = tmp_path / f"{engine}.json"
        flags = ["--engine", engine, "--root", str(root), "--limit", "1", "--json", str(path)]
        assert main(["--model", str(model), *flags]) == 0
        figures.append(json.loads(path.read_text()))
    assert figures[0]["measured"] == f"{model} through PyTorch, whole pictures"
    assert figures[1]["measured"] == f"{model} through onnxruntime-cpu"
