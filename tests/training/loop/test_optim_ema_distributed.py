"""Learning rate, moving average, process group, log and learning curves."""

import pytest
import torch
from PIL import Image
from torch import nn

from training.figures import learning_curves
from training.loop.distributed import ProcessGroup
from training.loop.ema import MovingAverage
from training.loop.optim import learning_rate
from training.loop.progress import CurveLog


def test_the_rate_warms_up_and_falls_to_zero():
    rates = [learning_rate(step, 100, peak=2.0, warmup=10) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == pytest.approx(2.0 * 0.91**0.9)
    assert rates[50] == pytest.approx(2.0 * 0.5**0.9)
    assert rates[100] == 0.0
    assert learning_rate(0, 100, peak=2.0) == 2.0


def test_the_average_follows_weights_and_statistics_and_copies_counters():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    average = MovingAverage(network, decay=0.5)
    start = average.network[0].weight.clone()
    with torch.no_grad():
        network[0].weight += 1.0
        network[1].running_mean += 2.0
        network[1].num_batches_tracked += 7
    average.update(network)  # the first update takes 1 - 1/10 of the network
    assert average.network[0].weight.item() == pytest.approx(start.item() + 0.9)
    assert average.network[1].running_mean.item() == pytest.approx(1.8)
    assert average.network[1].num_batches_tracked.item() == 7
    assert not average.network.training
    assert not any(p.requires_grad for p in average.network.parameters())


def test_a_group_of_one_process_has_no_effect():
    group = ProcessGroup.join("cpu")
    value = torch.tensor([1.0, 2.0])
    group.mean([value])
    assert value.tolist() == [1.0, 2.0]
    assert group.is_main
    assert group.any(True)
    assert not group.any(False)
    assert group.total(value) is value


def test_a_resumed_log_drops_the_rows_of_repeated_steps(tmp_path):
    path = tmp_path / "log.csv"
    log = CurveLog(path, 0)
    for step in (2, 4, 6):
        log.add(step, step // 2, 0.5, 1e-3, 0.25 if step == 4 else None)
    CurveLog(path, 4).add(6, 3, 0.125, 1e-3, None)
    assert [(row["step"], row["loss"], row["val_miou"]) for row in CurveLog.rows(path)] == [
        ("2", "0.50000", ""),
        ("4", "0.50000", "0.25000"),
        ("6", "0.12500", ""),
    ]


def test_runs_without_a_log_are_named(tmp_path, capsys):
    assert learning_curves.main([str(tmp_path), "-o", str(tmp_path / "curves.png")]) == 1
    assert str(tmp_path / "log.csv") in capsys.readouterr().err


def test_curves_of_several_runs(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        CurveLog(tmp_path / name / "log.csv", 0).add(2, 1, 0.5, 1e-3, 0.25)
    assert learning_curves.main([str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "c.png")]) == 0
    with Image.open(tmp_path / "c.png") as drawn:
        assert drawn.width > drawn.height > 300
