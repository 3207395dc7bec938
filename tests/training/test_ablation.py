"""The complete ablation on a data set of a few small images: four runs, their metrics, table and figure."""

import json
import sys

import pytest
import torch
from PIL import Image

from model_export.alignseg import AlignSeg
from model_export.flops import BILINEAR, WEIGHTS, cost
from tests.training import tiny_data
from training import ablation, train
from training.ablation import AblationError, carry_out, command, in_processes, main, plan
from training.config import Config
from training.evaluation.ablation_report import ALIGNED, MARK, table
from training.loop.trainer import Trainer

TINY = ["--channels=8", "--crop=32x32", "--batch=2", "--amp=none", "--workers=0", "--warmup=0", "--iterations=1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny_data.camvid(tmp_path_factory.mktemp("data"))


def never(_flags):
    raise AssertionError("no run was left to train")


def test_an_interrupted_ablation_continues_and_reports(root, tmp_path, capsys):
    started = []

    def train_two(flags):
        """As if Ctrl-C came during the third run: it saves its state and is not finished."""
        if len(started) == 2:
            return 130
        started.append(flags)
        return train.main(list(flags))

    report = tmp_path / "docs" / "ablation.md"
    flags = [f"--out={tmp_path / 'runs'}", "--seeds=3", "--device=cpu", f"--report={report}", f"--root={root}", *TINY]
    assert main(flags, train_two) == 130
    assert not report.exists()
    assert main(flags, lambda flags: train.main(list(flags))) == 0
    assert main(flags, never) == 0
    results = [json.loads(path.read_text()) for path in sorted((tmp_path / "runs").glob("*/result.json"))]
    assert {result["align"] for result in results} == ALIGNED.keys()
    assert all(result["seed"] == 3 and 0 <= result["miou"] <= 1 for result in results)
    written = report.read_text()
    assert all(f"| {name} |" in written for name in ALIGNED.values())
    assert "one seed" in written
    assert "channels 8" in written
    with Image.open(report.with_suffix(".png")) as drawn:
        assert drawn.width > 800
    report.write_text(written + "\nIt does not help here.\n")
    assert main(flags, never) == 0
    assert report.read_text() == written + "\nIt does not help here.\n"
    assert MARK in written
    capsys.readouterr()


def test_the_variants_of_a_seed_start_as_the_same_function(root, tmp_path):
    x, outputs = torch.randn(1, 3, 64, 64), []
    for run in plan(Config(root=str(root), channels=8, batch=2, ema=0.0), tmp_path, [0]):
        network = Trainer(run.config, torch.device("cpu")).network.eval()
        outputs.append(network(x))
        assert network.architecture.align_fa == (run.config.align in {"fa", "fa+cm"})
        assert network.architecture.align_cm == (run.config.align in {"cm", "fa+cm"})
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=1e-4, atol=1e-5)


def test_runs_of_another_schedule_are_rejected(root, tmp_path):
    config = Config(root=str(root), batch=2)
    (run, *_) = plan(config, tmp_path, [0])
    run.folder.mkdir()
    run.config.save(run.folder / "config.json")
    (other, *_) = plan(Config(root="elsewhere", batch=2, lr=0.1), tmp_path, [0])
    with pytest.raises(AblationError, match=r"lr 0\.0015, not 0\.1"):
        carry_out(other, never, "cpu", 3)
    with pytest.raises(AblationError, match="status 1"):
        carry_out(run, lambda _: 1, "cpu", 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--root=x", "--align=fa"], "--align is set for each run by the ablation"),
        (["--root=x", "--seeds=one"], "invalid literal"),
        ([], "--root is required: the folder of the data set"),
    ],
)
def test_invalid_options_are_errors(flags, message, tmp_path, capsys):
    assert main([f"--out={tmp_path}", *flags], never) == 2
    assert message in capsys.readouterr().err


def test_trainings_run_in_child_processes(monkeypatch):
    assert command(1, ["--out=x"])[1:] == ["-m", "training.train", "--out=x"]
    assert command(2, [])[1:5] == ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    monkeypatch.setattr(ablation, "command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    assert in_processes(1)([]) == 3
    wait_for_it = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    monkeypatch.setattr(ablation, "command", lambda *_: [sys.executable, "-c", wait_for_it])
    assert in_processes(1)([]) == 130


def test_the_table_compares_runs_of_the_same_seed():
    metrics = {"parameters": 3_500_000, "flops": 9_370_000_000, "warping_flops": 20_000_000, "boundary_f": 0.5}
    miou = {"none": (0.50, 0.60), "fa": (0.52, 0.62), "cm": (0.49, 0.61), "fa+cm": (0.55, 0.66)}
    results = [{"align": a, "seed": s, "miou": m[s], **metrics} for a, m in miou.items() for s in (1, 0)]
    rows = table(results).splitlines()
    assert rows[2].startswith("| plain upsample-and-add | 55.00 ± 7.07 |  | 50.00 ± 0.00 |  | 3.500 M | 9.37 | 0.020 |")
    assert "57.00 ± 7.07 | +2.00 ± 0.00" in rows[3]
    assert "55.00 ± 8.49 | +0.00 ± 1.41" in rows[4]


def test_the_cost_of_alignment_is_its_generators_and_its_sampling():
    whole, plain = (
        cost(AlignSeg("lite", 11, align_fa=switch, align_cm=switch).architecture, (96, 128)) for switch in (True, False)
    )
    pixels, coarse, c = 25 * 33, 4 * 5, 64  # at 1/4 and 1/32, which are rounded up
    generators = 2 * c * c + 2 * c + 9 * c * 2  # 1x1 to c, norm, 3x3 to (x, y)
    assert whole.parameters - plain.parameters == 9 * generators
    kernels = 2 * (2 * c * c + 9 * c * 2)
    sampling = 8 * (BILINEAR * c * pixels + WEIGHTS * pixels) + BILINEAR * c * coarse + WEIGHTS * coarse
    # AlignFA upsamples `high` twice, for its generators and to be sampled; plain addition once. AlignCM as often as it.
    upsampling = 4 * BILINEAR * c * pixels
    assert whole.warping_flops - plain.warping_flops == sampling + upsampling
    assert whole.flops - plain.flops == (8 * pixels + coarse) * kernels + sampling + upsampling
