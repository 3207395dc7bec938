#!/usr/bin/env bash
# Fills .carry/ for benchmarks/gpu/once.sh on a machine without network: bash benchmarks/gpu/pack.sh [CAMVID]
#   CAMVID: folder of the data set, for the training (default ../shared/camvid); only its training frames are packed.
# Run it in the development environment (PYTHON=.venv-dev/bin/python). Wheels are for CPython 3.12 on Linux x86_64.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
CAMVID=${1:-../shared/camvid}
CARRY=${CARRY:-.carry}
PACKAGES=(pydantic pydantic-core annotated-types typing-inspection 'typing-extensions>=4.16' pydantic-settings
    python-dotenv orjson rich markdown-it-py mdurl pygments simplejpeg onnx-ir onnxscript)

mkdir -p "$CARRY/wheels"
"$PYTHON" -m pip download --quiet --dest "$CARRY/wheels" --only-binary=:all: --python-version 3.12 \
    --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --no-deps "${PACKAGES[@]}"
"$PYTHON" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$CARRY/wheels" .
for wheel in "$CARRY"/wheels/*.whl; do
    [ "$(stat -c %s "$wheel")" -le 41943040 ] || { split -b 40M "$wheel" "$wheel." && rm "$wheel"; }
done
[ -d "$CAMVID/train" ] && tar -cf "$CARRY/camvid.tar" -C "$CAMVID" train
# Without the classifier, which the backbone does not use, and in float16: 7 of 18 MB.
"$PYTHON" - "$CARRY/efficientnet-lite0.pth" <<'PYTHON'
import sys
import torch
from training.loop.pretrained_efficientnet import CLASSIFIER, path_of
state = torch.load(path_of("efficientnet-lite0"), weights_only=True)
state = {name: tensor for name, tensor in state.items() if not name.startswith(CLASSIFIER)}
torch.save({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}, sys.argv[1])
PYTHON
du -sh "$CARRY"   # with the tracked files at most 64 MiB may be carried
