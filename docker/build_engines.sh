#!/bin/sh
# Fill the model folder $ALIGNSEG_MODEL from /source, then build the TensorRT engine that is missing for this GPU.
# /source is a model folder (with a model.json), or holds one checkpoint (.safetensors, .pth, .pt) to export.
# A failure is a warning while $ALIGNSEG_MODEL holds a model: the server then runs that model, without an engine in ONNX
# Runtime on the GPU. Exit code 2: there is no model to serve.
set -eu

keep_the_old_model() {
    if [ ! -f "$ALIGNSEG_MODEL/model.json" ]; then
        echo "error: $1" >&2
        exit 2
    fi
    echo "warning: $1 The server runs the model that was already in $ALIGNSEG_MODEL." >&2
}

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
        keep_the_old_model "/source holds neither a model.json nor a checkpoint (.safetensors, .pth, .pt). Set \
ALIGNSEG_SOURCE to a folder that does."
    else
        # $ALIGNSEG_EXPORT: more options, for a checkpoint without class names; e.g. --data cityscapes
        # shellcheck disable=SC2086
        alignseg export "$checkpoint" --out "$ALIGNSEG_MODEL" ${ALIGNSEG_EXPORT:-} ||
            keep_the_old_model "$checkpoint was not exported (reason above)."
    fi
fi

code=0
python -m model_export.build_engine "$ALIGNSEG_MODEL" --if-missing --precision "${ALIGNSEG_PRECISION:-fp16}" || code=$?
case $code in
    0) ;;
    1) echo "warning: the TensorRT engine was discarded, since its class maps differ from PyTorch's (table above)." >&2 ;;
    *) echo "warning: no TensorRT engine was built (code $code, reason above)." >&2 ;;
esac
[ "$code" -eq 0 ] || echo "The server runs the model in ONNX Runtime on the GPU." >&2
