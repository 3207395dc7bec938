"""Offsets are captured from the generators, converted to image pixels and drawn."""

import numpy as np
import pytest
import torch
from PIL import Image

from model_export.alignseg import AlignSeg
from model_export.alignseg.sampling import sample
from model_export.checkpoints import checkpoint
from training.figures.flow_colors import flow_to_rgb, wheel
from training.figures.offset_fields import OffsetField
from training.visualize_offsets import in_image_pixels, main, offset_fields


def build_network(backbone="lite", **choices) -> AlignSeg:
    torch.manual_seed(0)
    network = AlignSeg(backbone, 5, channels=8, **choices).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(("_offsets.2.weight", ".to_offsets.weight")):
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def random_image(height=64, width=96):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_every_generator_has_an_offset_field():
    network = build_network()
    ids, fields = offset_fields(network, random_image())
    assert ids.shape == (64, 96)
    shapes = {field.module: field.pixels.shape for field in fields}
    assert shapes == {
        "align_cm.context_offsets": (2, 3, 4),
        **{f"align_fa.{n}.{side}_offsets": (2, 17, 25) for n in (2, 3, 4, 5) for side in ("high", "low")},
    }
    assert not any(module._forward_hooks for module in network.modules())


def test_the_slim_decoders_generators_have_two_offset_fields_each():
    """Each step's offsets have the size of its finer map; high is what moves the coarse one."""
    network, sizes = build_network("efficientnet-lite0"), {3: (4, 6), 2: (8, 12), 1: (16, 24)}
    ids, fields = offset_fields(network, random_image())
    assert ids.shape == (64, 96)
    shapes = {field.module: field.pixels.shape for field in fields}
    assert shapes == {
        "align_cm.context_offsets": (2, 2, 3),
        **{f"align_fa.{n}.offsets.{side}": (2, *sizes[n]) for n in sizes for side in ("high", "low")},
    }
    pixels = {field.module: field.pixels for field in fields}
    with torch.inference_mode():
        network.align_fa["1"].offsets.to_offsets.weight[2:] = 0  # rows of low
        changed = {field.module: field.pixels for field in offset_fields(network, random_image())[1]}
    np.testing.assert_array_equal(changed["align_fa.1.offsets.high"], pixels["align_fa.1.offsets.high"])
    assert pixels["align_fa.1.offsets.low"].any()
    assert not changed["align_fa.1.offsets.low"].any()


@pytest.mark.parametrize("sampling", ["standard", "published"])
@pytest.mark.parametrize("source", [(5, 9), (3, 3)], ids=["as large as the raster", "AlignCM's regions"])
def test_offsets_in_pixels_are_those_of_sampling(sampling, source):
    """A ramp along x, sampled with and without an offset, differs by what the offset moves, in shares of the width."""
    raw = np.zeros((2, 5, 9), np.float32)
    raw[0] = 0.25
    share = (torch.arange(source[1]) + (0.0 if sampling == "standard" else 0.5)) / (
        source[1] - (1 if sampling == "standard" else 0)
    )
    ramp = share.expand(1, 1, *source).contiguous()
    moved, still = (sample(ramp, torch.tensor(offsets)[None], sampling)[0, 0, 2, 4] for offsets in (raw, 0 * raw))
    extent = 101
    pixels = in_image_pixels(raw, sampling, source, (51, extent))
    expected = float(moved - still) * (extent - 1 if sampling == "standard" else extent)
    assert pixels[0, 2, 4] == pytest.approx(expected, rel=1e-4)
    assert not pixels[1].any()


def test_the_wheel_has_the_colours_of_the_benchmark():
    """Right red, down yellow, left cyan, up between blue and magenta; white in the middle, darker beyond full."""
    flow = np.array([[[1, 0, -1, 0, 0, 2]], [[0, 1, 0, -1, 0, 0]]], float)
    right, down, left, up, none, beyond = flow_to_rgb(flow, 1.0)[0].tolist()
    assert right == [255, 0, 0]
    assert down[0] == 255
    assert down[1] > 220
    assert left[0] == 0
    assert left[1] > 190
    assert left[2] == 255
    assert up[2] == 255
    assert up[1] == 0
    assert none == [255, 255, 255]
    assert beyond == [191, 0, 0]
    assert (wheel(31)[0, 0] == 255).all()
    assert (wheel(31)[15, 15] == 255).all()


def test_titles_name_module_and_source():
    field = np.zeros((2, 4, 4), np.float32)
    assert OffsetField("align_fa.2.high_offsets", field).title == "AlignFA 2, high: stage 2, 1/8"
    assert OffsetField("align_fa.5.high_offsets", field).title == "AlignFA 5, high: AlignCM's context, 1/32"
    assert OffsetField("align_fa.3.low_offsets", field).title == "AlignFA 3, low: decoder map d2, 1/4"
    assert OffsetField("align_fa.3.offsets.high", field).title == "AlignFA 3, high: AlignCM's context, 1/32"
    assert OffsetField("align_fa.1.offsets.high", field).title == "AlignFA 1, high: decoder map, 1/8"
    assert OffsetField("align_fa.1.offsets.low", field).title == "AlignFA 1, low: stage 1, 1/4"


@pytest.mark.parametrize("switches", [{}, {"align_cm": False}, {"align_fa": False}, {"backbone": "efficientnet-lite0"}])
def test_a_figure_from_the_command_line(tmp_path, switches):
    checkpoint.save(tmp_path / "x.safetensors", build_network(**switches))
    Image.fromarray(random_image()).save(tmp_path / "street.png")
    out = tmp_path / "offsets.png"
    assert main([str(tmp_path / "street.png"), "-o", str(out), "--model", str(tmp_path / "x.safetensors")]) == 0
    with Image.open(out) as drawn:
        assert drawn.width > 1000


def test_invalid_input_is_an_error(tmp_path, capsys):
    plain, text = tmp_path / "plain.safetensors", tmp_path / "street.png"
    checkpoint.save(plain, build_network(align_fa=False, align_cm=False))
    text.write_text("not an image")
    flags = ["-o", str(tmp_path / "out.png"), "--model"]
    assert main([str(text), *flags, str(plain)]) == 2
    assert main([str(tmp_path / "none.png"), *flags, str(plain)]) == 2
    Image.fromarray(random_image()).save(text)
    assert main([str(text), *flags, str(plain)]) == 2
    assert main([str(text), *flags, str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.count("error:") == 4
    assert "the network has no offsets" in message
    assert not (tmp_path / "out.png").exists()


def test_a_photograph_is_resized_as_in_serving(tmp_path, monkeypatch):
    """4000x3000 and a small copy of it give the network the same image."""
    inputs = []

    def record(network, image):
        inputs.append(image)
        return offset_fields(network, image)

    monkeypatch.setattr("training.visualize_offsets.offset_fields", record)
    checkpoint.save(tmp_path / "x.safetensors", build_network())
    large = Image.fromarray(random_image(6, 8)).resize((4000, 3000), Image.Resampling.BICUBIC)
    for size in ((4000, 3000), (480, 360)):
        large.resize(size, Image.Resampling.BOX).save(tmp_path / "street.png")
        out = tmp_path / "offsets.png"
        assert main([str(tmp_path / "street.png"), "-o", str(out), "--model", str(tmp_path / "x.safetensors")]) == 0
    assert [image.shape for image in inputs] == [(369, 481, 3)] * 2
    height, width = 360, 480  # what both fill
    assert np.abs(inputs[0][:height, :width].astype(int) - inputs[1][:height, :width]).mean() < 3
