"""What the OpenAPI document promises, tried by schemathesis: no 5xx, and no answer that it does not tell of."""

from collections.abc import Generator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.server_process import Process, running, stand_in

EXAMPLES = 12  # for each operation and mode: seconds in all
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def server() -> Generator[Process, None, None]:
    with running(stand_in(0.1)) as process:
        yield process
        assert process.stop() == 0
    assert not [line for line in process.log if "Traceback" in line]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
def test_no_request_breaks_the_promises(server: Process, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried = [operation.ok() for operation in schema.get_all_operations()]
    assert len(tried) >= 6
    for operation in tried:

        @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def try_it(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        try:
            try_it()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE
        except Exception as error:
            error.add_note(f"{operation.method.upper()} {operation.path}")
            raise
