"""`python -m service.grpc_api.generate`: compile open_inference.proto to open_inference.binpb. Needs grpcio-tools."""

from importlib import resources
from pathlib import Path


def descriptor_set() -> bytes:
    """The compiled file, a serialised FileDescriptorSet. Raises ImportError without grpcio-tools."""
    from grpc_tools import protoc  # noqa: PLC0415 - development only

    folder = Path(__file__).parent
    out = folder / "open_inference.new"
    includes = resources.files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{folder}", f"-I{includes}", f"--descriptor_set_out={out}", "open_inference.proto"]
    if protoc.main(arguments):
        raise SystemExit("protoc failed, see above")
    content = out.read_bytes()
    out.unlink()
    return content


if __name__ == "__main__":
    (Path(__file__).parent / "open_inference.binpb").write_bytes(descriptor_set())
