"""A request of the Open Inference Protocol as its JSON has it; a gRPC message has the same members."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictInt, ValidationError

from service.errors import BadRequest

Name = Annotated[str, Field(max_length=256)]
Parameters = dict[str, Any]


class Tensor(BaseModel):
    """One input. data: None where its bytes are elsewhere."""

    name: Name
    datatype: str
    shape: list[Annotated[StrictInt, Field(ge=1)]] = Field(max_length=8)
    parameters: Parameters = {}
    data: list[Any] | None = None


class _Output(BaseModel):
    name: Name
    parameters: Parameters = {}


class Request(BaseModel):
    """A request as its JSON has it."""

    id: Name | None = None
    parameters: Parameters = {}
    inputs: list[Tensor] = Field(max_length=8)
    outputs: list[_Output] = Field(default=[], max_length=8)


def validate(document: Any) -> Request:
    """A request from its members. Raises BadRequest."""
    try:
        return Request.model_validate(document)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:4])
        raise BadRequest(f"Not a request of the Open Inference Protocol: {details}.") from None
