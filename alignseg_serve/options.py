"""The options of the `alignseg` command, each with its help text. Brackets are escaped: Rich reads them as markup."""

from pathlib import Path
from typing import Annotated

import typer

from alignseg_serve.ray_job import MaskFormat

Model = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Model folder (model.json).  \\[env: ALIGNSEG_MODEL; default: weights/alignseg-lite]"
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Inference runtime: auto (the fastest that is installed), tensorrt, onnxruntime-cuda, openvino-int8, "
        "openvino-bf16, openvino-cpu or onnxruntime-cpu.  \\[env: ALIGNSEG_ENGINE; default: auto]",
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Address to listen on; 0.0.0.0 accepts connections from other machines.  "
        "\\[env: ALIGNSEG_HOST; default: 127.0.0.1]",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(metavar="NUMBER", help="TCP port; 0 chooses a free one.  \\[env: ALIGNSEG_PORT; default: 8000]"),
]
RayServe = Annotated[
    bool, typer.Option("--ray", help="Serve with Ray Serve, on all GPUs of a cluster; see docs/scale.md.")
]
Sources = Annotated[list[str], typer.Argument(metavar="IMAGE_OR_FOLDER...", help="Image files, or folders of them.")]
MasksOut = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="PATH",
        help="Folder for the masks; subfolders are kept. For a single image, a file name that ends in .png.",
    ),
]
Overlay = Annotated[bool, typer.Option("--overlay", help="Also write NAME.overlay.png.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Segment images again whose masks exist already.")]
Server = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Use a running server, such as http://gpu:8000, instead of a local model."),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        envvar="ALIGNSEG_API_KEY",
        show_envvar=False,
        help="API key, if the server requires one.  \\[env: ALIGNSEG_API_KEY]",
        show_default=False,
    ),
]
RayData = Annotated[
    bool,
    typer.Option(
        "--ray",
        help="Use Ray Data, for millions of images: one folder or Parquet file, local or s3://, gs://; "
        "see docs/scale.md.",
    ),
]
Masks = Annotated[
    MaskFormat,
    typer.Option(help="With --ray: write PNG files, or COCO RLE into the Parquet files of the results."),
]
Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Checkpoint of training.train (.safetensors), or a state dict of published weights (.pth).",
    ),
]
ModelOut = Annotated[
    Path, typer.Option("--out", "-o", metavar="FOLDER", help="Model folder to write, such as weights/my-model.")
]
DataSet = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Data set whose classes the model has: camvid, cityscapes or ade20k. Only needed when the checkpoint "
        "does not record it.",
    ),
]
ClassesFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help='JSON file of other classes: [{"name": ..., "color": \\[r, g, b]}, ...].'),
]
Frames = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Image or folder on which the ONNX model is compared with PyTorch.  \\[default: the demo scene]",
    ),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HEIGHTxWIDTH",
        help="Input size to serve at; repeat for several. Each side should be one more than a multiple of 16.  "
        "\\[default: four sizes that fit the images of the data set]",
    ),
]
Half = Annotated[
    bool, typer.Option("--half", help="Store the weights as float16. The model still computes in float32.")
]
OnnxOnly = Annotated[
    bool,
    typer.Option(
        "--onnx-only",
        help="Write no model.safetensors: PyTorch reads the weights from model.onnx. For EfficientNet backbones only.",
    ),
]
Inline = Annotated[
    bool,
    typer.Option(
        "--inline",
        help="Also write model.inlined.onnx, for OpenCV, OpenVINO, quantize_dynamic and other tools that read no local "
        "functions. The server does not use it.",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Typical images on which int8 ranges are measured, for OpenVINO. Without it, the model has no int8 "
        "engine and bf16 is the fastest on CPUs.",
    ),
]
