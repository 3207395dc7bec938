#!/bin/sh
# Fill the model folder $ALIGNSEG_MODEL from /source, then build the TensorRT engine that is missing for this GPU.
# /source is a model folder (with a model.json), or holds one checkpoint (.safetensors, .pth, .pt) to export.
# A failed build is a warning, not an error: the server then runs the model in ONNX Runtime on the GPU.
set -eu

if [ -f /source/model.json ]; then
    echo "Copying the model from /source to $ALIGNSEG_MODEL"
    for file in /source/*; do
        # model.json comes last and at once: a running server loads the model as soon as it changes.
        if [ -f "$file" ] && [ "${file##*/}" != model.json ]; then cp "$file" "$ALIGNSEG_MODEL/"; fi
    done
    cp /source/model.json "$ALIGNSEG_MODEL/model.json.part"
    mv "$ALIGNSEG_MODEL/model.json.part" "$ALIGNSEG_MODEL/model.json"
else
    checkpoint=$(find /source -maxdepth 1 \( -name '*.safetensors' -o -name '*.pth' -o -name '*.pt' \) | head -n 1)
    if [ -z "$checkpoint" ]; then
        echo "error: /source holds neither a model.json nor a checkpoint (.safetensors, .pth, .pt)." \
            "Set ALIGNSEG_SOURCE to a folder that does." >&2
        exit 2
    fi
    # $ALIGNSEG_EXPORT: more options, for a checkpoint without class names; e.g. --data cityscapes
    # shellcheck disable=SC2086
    alignseg export "$checkpoint" --out "$ALIGNSEG_MODEL" ${ALIGNSEG_EXPORT:-}
fi

python -m model_export.build_engine "$ALIGNSEG_MODEL" --if-missing --precision "${ALIGNSEG_PRECISION:-fp16}" ||
    echo "warning: no TensorRT engine was built (reason above). The server runs the model in ONNX Runtime on the GPU." >&2
