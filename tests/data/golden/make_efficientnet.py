"""Writes efficientnet.npz: features of the reference implementation on seeded weights.

    pip install --no-deps efficientnet-lite-pytorch==0.1.0
    python -m tests.data.golden.make_efficientnet

The reference is EfficientNet-PyTorch with the Lite variants; its padding is set to the dynamic kind, TensorFlow's SAME
at any size. The weights are float32, what is computed of them float64. Of each of the four maps a part is kept, as
float32.
"""

from pathlib import Path

import numpy as np
import torch

from tests.data.golden import seeded

FILE = Path(__file__).with_name("efficientnet.npz")
SIZES = ((64, 98), (65, 97), (70, 131))
SEED = 2
# Blocks before each of the maps at 1/4, 1/8, 1/16 and 1/32.
BLOCKS = {"efficientnet-lite0": (3, 5, 11, 16), "efficientnet-lite2": (4, 7, 15, 21)}


def image(size: tuple[int, int]) -> np.ndarray:
    """A random image, (1, 3, H, W), as the networks take it."""
    pixels = np.random.Generator(np.random.PCG64(SEED)).integers(0, 256, (1, 3, *size))
    return (pixels - 127.0) / 128.0


def kept(features: torch.Tensor) -> dict[str, np.ndarray]:
    """What of a map is stored: the mean of each channel, and every third pixel of a few channels."""
    values = features[0].numpy()
    step = len(values) // 6
    return {"means": values.mean(axis=(1, 2)), "pixels": values[::step, ::3, ::3]}


def state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Seeded weights for these keys and shapes, float32."""
    return {key: torch.from_numpy(np.array(seeded.tensor(key, shape, SEED))).float() for key, shape in shapes.items()}


def main() -> None:
    """Compute and write."""
    from efficientnet_lite_pytorch import EfficientNet, model, utils

    model.get_same_padding_conv2d = lambda image_size=None: utils.Conv2dDynamicSamePadding
    arrays = {}
    for name, blocks in BLOCKS.items():
        network = EfficientNet.from_name(name).eval()
        network.load_state_dict(state({key: tuple(value.shape) for key, value in network.state_dict().items()}))
        network.double()
        for size in SIZES:
            with torch.inference_mode():
                x = network._swish(network._bn0(network._conv_stem(torch.from_numpy(image(size)))))
                for number, block in enumerate(network._blocks, 1):
                    x = block(x)
                    if number in blocks:
                        for part, values in kept(x).items():
                            key = f"{name} {size[0]}x{size[1]} {blocks.index(number)} {part}"
                            arrays[key] = values.astype(np.float32)
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
