"""A run from the command line: its files, and that interruptions do not change the result."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model_export.checkpoints import checkpoint
from tests.training import tiny_data
from training import evaluate
from training.config import RECIPES, Config
from training.data.datasets import Dataset, evenly
from training.loop.run_state import load_state, save_state
from training.loop.trainer import Trainer
from training.train import main, parser

TINY = ["--channels=8", "--crop=32x32", "--batch=2", "--amp=none", "--workers=0", "--warmup=2", "--eval-every=2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny_data.camvid(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory):
    """A run of four epochs of two steps."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    assert main([*TINY, "--epochs=4", f"--root={root}", f"--out={out}"]) == 0
    return out


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same(a, b) -> None:
    """Equal to the last bit."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    else:
        assert a == b


def test_files_of_a_run(uninterrupted, root):
    files = {"config.json", "state.pt", "best.safetensors", "log.csv", "curves.png"}
    assert {path.name for path in uninterrupted.iterdir()} == files
    assert json.loads((uninterrupted / "config.json").read_text())["root"] == str(root)
    assert [(row["step"], row["epoch"], bool(row["val_miou"])) for row in rows(uninterrupted)] == [
        ("2", "1", False),
        ("4", "2", True),
        ("6", "3", False),
        ("8", "4", True),
    ]
    network = checkpoint.load(uninterrupted / "best.safetensors")
    assert network.architecture.num_classes == 11
    metadata = checkpoint.read_metadata(uninterrupted / "best.safetensors")
    assert metadata["train_on"] == "train"
    assert float(metadata["val_miou"]) == max(float(row["val_miou"] or 0) for row in rows(uninterrupted))


@pytest.mark.parametrize("stopped_after", [3, 4])
def test_a_run_stopped_by_a_signal_resumes_to_the_same_result(
    stopped_after, uninterrupted, root, tmp_path, monkeypatch, capsys
):
    learn = Trainer.learn

    def learn_and_send_sigterm(self, *batch):
        loss = learn(self, *batch)
        if self.step == stopped_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    monkeypatch.setattr(Trainer, "learn", learn_and_send_sigterm)
    assert main([*TINY, "--epochs=4", f"--root={root}", f"--out={tmp_path}"]) == 130
    assert load_state(tmp_path / "state.pt")["step"] == stopped_after
    assert "--resume" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(["--resume", f"--out={tmp_path}"]) == 0
    assert_same(load_state(tmp_path / "state.pt"), load_state(uninterrupted / "state.pt"))
    assert (tmp_path / "log.csv").read_text() == (uninterrupted / "log.csv").read_text()


@pytest.mark.parametrize("epochs", [2, 4], ids=["at the end", "in between"])
def test_a_signal_during_validation_stops_it_within_an_image(epochs, root, tmp_path, monkeypatch, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    flags = [*TINY, f"--epochs={epochs}", f"--root={root}"]
    assert main([*flags, f"--out={whole}"]) == 0
    read, validated = Dataset.read, []

    def read_and_send_sigterm(self, pair):
        if "val" in pair.picture.parts:
            validated.append(pair)
            os.kill(os.getpid(), signal.SIGTERM)
        return read(self, pair)

    monkeypatch.setattr(Dataset, "read", read_and_send_sigterm)
    assert main([*flags, f"--out={stopped}"]) == 130
    assert len(validated) == 1  # of two
    assert load_state(stopped / "state.pt")["step"] == 4
    assert "stopped at step 4" in capsys.readouterr().out
    assert not (stopped / "best.safetensors").exists()
    monkeypatch.undo()
    assert main(["--resume", f"--out={stopped}"]) == 0
    assert_same(load_state(stopped / "state.pt"), load_state(whole / "state.pt"))
    assert (stopped / "log.csv").read_text() == (whole / "log.csv").read_text()


def test_validation_on_fewer_images_is_remembered(root, tmp_path, monkeypatch):
    validated = []
    read = Dataset.read

    def counting_read(self, pair):
        validated.extend([pair.picture.stem] * ("val" in pair.picture.parts))
        return read(self, pair)

    monkeypatch.setattr(Dataset, "read", counting_read)
    assert main([*TINY, "--epochs=2", "--val-images=1", f"--root={root}", f"--out={tmp_path}"]) == 0
    assert validated == ["0000"]
    assert checkpoint.read_metadata(tmp_path / "best.safetensors")["val_images"] == "1"
    assert Config.load(tmp_path / "config.json").val_images == 1


@pytest.mark.parametrize(("count", "chosen"), [(0, range(10)), (10, range(10)), (99, range(10)), (3, [0, 3, 6])])
def test_fewer_images_are_evenly_chosen(count, chosen):
    assert list(evenly(list(range(10)), count)) == list(chosen)


def test_the_precision_is_chosen_once(root, tmp_path, monkeypatch):
    """A run continued on another machine computes as before."""
    flags = [flag for flag in TINY if not flag.startswith("--amp")]
    monkeypatch.setattr("training.loop.precision.bf16_pays", lambda *_: False)
    assert main([*flags, "--iterations=1", f"--root={root}", f"--out={tmp_path}"]) == 0
    assert Config.load(tmp_path / "config.json").amp == "none"


def test_a_killed_run_repeats_the_steps_that_were_not_saved(uninterrupted, root, tmp_path, monkeypatch):
    learn = Trainer.learn

    def learn_and_crash(self, *batch):
        if self.step == 5:
            raise MemoryError
        return learn(self, *batch)

    monkeypatch.setattr(Trainer, "learn", learn_and_crash)
    with pytest.raises(MemoryError):
        main([*TINY, "--epochs=4", f"--root={root}", f"--out={tmp_path}"])
    assert load_state(tmp_path / "state.pt")["step"] == 4
    monkeypatch.undo()
    with (tmp_path / "log.csv").open("a") as file:
        file.write("6,3,9.9,1e-3,\n")  # logged, but not saved before the crash
    assert main(["--resume", f"--out={tmp_path}"]) == 0
    assert_same(load_state(tmp_path / "state.pt"), load_state(uninterrupted / "state.pt"))
    assert (tmp_path / "log.csv").read_text() == (uninterrupted / "log.csv").read_text()


def test_a_crash_while_saving_keeps_the_previous_state(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    save_state(path, {"step": 1})

    def half(_state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_state(path, {"step": 2})
    assert load_state(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_papers_recipe_on_a_cityscapes_folder(tmp_path):
    data, out = tiny_data.cityscapes(tmp_path / "data"), tmp_path / "run"
    small = ["--backbone=lite", "--channels=8", "--iterations=2", "--batch=2", "--crop=32x32", "--workers=0"]
    assert main(["--recipe=paper", f"--root={data}", f"--out={out}", *small]) == 0
    config = Config.load(out / "config.json")
    assert (config.optimizer, config.lr, config.weight_decay, config.aux_weight) == ("sgd", 0.01, 5e-4, 0.1)
    assert checkpoint.load(out / "best.safetensors").architecture.num_classes == 19
    protocol = ["--data=cityscapes", "--tile=32x32", "--scales=0.75,1", "--flip"]  # 872x872 on real images
    assert evaluate.main([f"--checkpoint={out / 'best.safetensors'}", f"--root={data}", *protocol]) == 0


def test_options_of_training(root, tmp_path):
    """bf16, OHEM, median weights, SGD, train+val, scenes: each runs, and train+val keeps the last weights."""
    flags = ["--amp=bf16", "--loss=ohem+0.5*lovasz", "--class-weights=median", "--optimizer=sgd", "--lr=0.01"]
    more = ["--train-on=train+val", "--scenes=0.5", "--loss-stride=2", "--ema=0", "--iterations=2", "--crop=64x64"]
    assert main([*TINY, *flags, *more, f"--root={root}", f"--out={tmp_path}"]) == 0
    assert checkpoint.read_metadata(tmp_path / "best.safetensors")["train_on"] == "train+val"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume"], "does not exist. Start the run without --resume"),
        ([], "--root is required: the folder of the data set"),
        (["--root=nowhere"], "expected images at nowhere/train/images"),
        (["--root=x", "--crop=huge"], "got 'huge'; expected HEIGHTxWIDTH"),
        (["--root=x", "--scenes=2"], "scenes: got 2.0, expected 0.0..1.0"),
        (["--root=x", "--data=ade20k", "--scenes=0.1"], "leave it at 0"),
    ],
)
def test_invalid_options_are_errors_without_a_traceback(flags, message, tmp_path, capsys):
    assert main([f"--out={tmp_path}", *flags]) == 2
    assert message in capsys.readouterr().err.replace("\n", "")


def test_an_existing_run_is_neither_overwritten_nor_changed(uninterrupted, root, capsys):
    assert main([f"--root={root}", f"--out={uninterrupted}"]) == 2
    assert main(["--resume", "--lr=1", f"--out={uninterrupted}"]) == 2
    message = capsys.readouterr().err
    assert "use another folder" in message
    assert "got --lr, but" in message


def test_a_diverging_run_names_the_fix(root, tmp_path, capsys):
    assert main([*TINY, "--epochs=3", "--lr=1e30", f"--root={root}", f"--out={tmp_path}"]) == 1
    assert "try a lower --lr" in capsys.readouterr().err.replace("\n", "")


def test_help_has_examples_recipes_and_downloads():
    message = parser().format_help()
    for part in ("--resume", "examples:", "small-data", "paper: --data cityscapes", "www.cityscapes-dataset.com"):
        assert part in message
    assert "efficientnet: --backbone efficientnet-lite0" in message
    assert RECIPES.keys() == {"small-data", "paper", "efficientnet"}


def test_two_processes_train_one_network(root, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    flags = [*TINY, "--iterations=2", f"--root={root}", f"--out={tmp_path}"]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "training.train", *flags]
    processes = [
        subprocess.Popen(command, env={**os.environ, **group, "RANK": rank})  # noqa: S603
        for rank in "01"
    ]
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    assert [row["step"] for row in rows(tmp_path)] == ["2"]
    assert load_state(tmp_path / "state.pt")["step"] == 2
