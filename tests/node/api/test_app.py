"""The table of routes is what the app serves, no less and no more."""

import pytest

from node.api.app import ROUTES
from tests.node.api.raw_http import Served


async def test_every_route_of_the_table_is_served(api: Served) -> None:
    for route in ROUTES:
        path = route.path.replace("{id:path}", "auto").replace("{id}", "0a")
        reply = await api.get(path, unix=True, method=route.method)
        if path.endswith("/0a"):  # This node has no task, and says so itself.
            assert reply.error["code"] == "unknown_task"
            continue
        # A POST without a body is refused by its handler, not by the router.
        assert reply.status in ((200, 202) if route.method == "GET" or "shutdown" in route.path else (415,)), route


async def test_every_route_says_what_it_is_for_once() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    assert all(route.purpose and not route.purpose.endswith(".") for route in ROUTES)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/images", "/swarm/v1/status/", "/api/tags", "//healthz"])
async def test_other_paths_are_404_in_the_shape_of_errors(api: Served, path: str) -> None:
    reply = await api.get(path)
    assert reply.status == 404
    assert reply.error["code"] == "no_such_route"


async def test_other_methods_are_405_and_say_which(api: Served) -> None:
    reply = await api.get("/v1/chat/completions")
    assert reply.status == 405
    assert reply.error["code"] == "method_not_allowed"
    assert reply.headers["allow"] == "POST"


async def test_head_of_a_read_has_no_body(api: Served) -> None:
    reply = await api.get("/healthz", method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
