"""The server's own description of itself, and what testers make of it."""

import asyncio
import warnings

import pytest
from openapi_schema_validator import OAS31Validator
from starlette.applications import Starlette
from starlette.routing import Route

from components.serving import Door, ServingConfig
from components.serving.openapi import openapi
from tests.unit.serving.fakes import LIMITS, METHODS, client_of, good, invert

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of what schemathesis is made of
    import schemathesis
    from hypothesis import HealthCheck, settings
    from schemathesis.checks import positive_data_acceptance

door = Door(invert, LIMITS, "7", ServingConfig())
app = Starlette(routes=[Route("/{path:path}", door.answer, methods=METHODS)])
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


def test_a_good_request_and_its_answer_are_as_described():
    document = openapi("7")
    post = document["paths"]["/v1/pictures"]["post"]
    asked = post["requestBody"]["content"]["application/json"]["schema"]
    told = post["responses"]["200"]["content"]["application/json"]["schema"]
    shared = {"components": document["components"]}
    OAS31Validator(asked | shared).validate(good())
    with pytest.raises(Exception, match="colour"):
        OAS31Validator(asked | shared).validate(good(colour="red"))

    async def once():
        async with client_of(door) as client:
            return (await client.post("/v1/pictures", json=good(pictures=2))).json()

    OAS31Validator(told | shared).validate(asyncio.run(once()))


@schema.parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_page_answers_as_described(case):
    case.call_and_validate(excluded_checks=[positive_data_acceptance])  # no schema can say what a face is
