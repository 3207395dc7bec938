#!/bin/sh
# Fill the model folder $ALIGNSEG_MODEL from /source, then build the engine that this machine lacks.
# /source is a model folder (with a model.json), or holds one checkpoint (.safetensors, .pth, .pt), which is exported.
# A failed build is told but does not fail: the server runs ONNX Runtime on the GPU instead.
set -eu

if [ -f /source/model.json ]; then
    echo "model     copied from /source"
    for file in /source/*; do
        # The manifest last: it vouches for the others, and the server looks at it.
        if [ -f "$file" ] && [ "${file##*/}" != model.json ]; then cp "$file" "$ALIGNSEG_MODEL/"; fi
    done
    cp /source/model.json "$ALIGNSEG_MODEL/model.json.part"
    mv "$ALIGNSEG_MODEL/model.json.part" "$ALIGNSEG_MODEL/model.json"
else
    checkpoint=$(find /source -maxdepth 1 \( -name '*.safetensors' -o -name '*.pth' -o -name '*.pt' \) | head -n 1)
    if [ -z "$checkpoint" ]; then
        echo "error: /source holds neither a model.json nor a checkpoint; set ALIGNSEG_SOURCE to a folder that does" >&2
        exit 2
    fi
    # $ALIGNSEG_EXPORT: further options for a checkpoint that does not tell its classes, e.g. --data cityscapes
    # shellcheck disable=SC2086
    alignseg export "$checkpoint" --out "$ALIGNSEG_MODEL" ${ALIGNSEG_EXPORT:-}
fi

python -m model_export.build_engine "$ALIGNSEG_MODEL" --if-missing --precision "${ALIGNSEG_PRECISION:-fp16}" ||
    echo "warning: no engine (see above); the server runs ONNX Runtime on the GPU instead" >&2
