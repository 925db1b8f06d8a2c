"""The HTTP application: LibreTranslate's API, more as JSON, the page, and OpenAPI."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from transformer.errors import ConfigError, UserError, one_line
from transformer.serving.batching import ClientBusyError, RefusedError, StoppingError
from transformer.serving.models import NoSuchModelError
from transformer.serving.page import content_security_policy, page
from transformer.serving.request_body import BoundedBody
from transformer.serving.schemas import (
    AttentionAnswer,
    AttentionRequest,
    Direction,
    Error,
    Health,
    Language,
    LibreAnswer,
    LibreRequest,
    TranslationsAnswer,
    TranslationsRequest,
)
from transformer.serving.service import Pending, Service, TooLargeError
from transformer.training.device import is_out_of_memory

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

_POLL_S = 0.5  # between two questions whether the client of a waiting request has gone
_GONE = 499  # nginx's status for that; nobody reads it
_RETRY_AFTER_S = 10  # when memory is short
_MOST_MESSAGES = 3
_DESCRIPTION = (
    "Machine translation. /translate, /languages and /health are those of LibreTranslate; languages are not detected. "
    "Errors are objects with the text `error`. With 429 and 503, Retry-After has seconds."
)


def check_installed() -> None:
    """ConfigError, with what to install, unless there are FastAPI and uvicorn."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ConfigError("serving needs FastAPI and uvicorn: pip install 'attention-is-all-you-need[serve]'") from None


def make_app(service: Service) -> "FastAPI":
    """The application; its end waits for what the service has accepted. ConfigError without FastAPI."""
    check_installed()
    from fastapi import FastAPI

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.hand_over = _by_loop(asyncio.get_running_loop())
        yield
        await asyncio.to_thread(service.batcher.close)

    # Without Swagger's and ReDoc's pages, which load programs from elsewhere.
    app = FastAPI(
        title="transformer",
        version=sys.modules["transformer"].__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    _add_requests(app, service)
    _add_descriptions(app, service)
    _answer_errors(app)
    app.add_middleware(BoundedBody, max_bytes=service.limits.max_body)
    return app


def _by_loop(loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], None]], None]:
    """Lets the loop end the requests of a batch, for which it is woken up once and not once for each."""

    def hand_over(end_requests: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended, and with it all that waited
            loop.call_soon_threadsafe(end_requests)

    return hand_over


def _add_requests(app: "FastAPI", service: Service) -> None:
    """The paths that compute something."""
    from fastapi import Request
    from fastapi.responses import Response

    # Answers are written here: FastAPI would check their thousands of numbers once more.
    def json(text: str) -> Response:
        return Response(text, media_type="application/json")

    async def translate(body: LibreRequest, request: Request) -> Response:
        answer = await _answered(request, service.translate(body, _client(request)))
        return json(answer.model_dump_json(exclude_none=True))

    async def translations(body: TranslationsRequest, request: Request) -> Response:
        answer = await _answered(request, service.translations(body, _client(request)))
        return json(answer.model_dump_json(exclude_unset=True))

    async def attention(body: AttentionRequest, request: Request) -> Response:
        return json(await _answered(request, service.attention(body, _client(request))))

    refusals: dict[int | str, dict[str, Any]] = {status: {"model": Error} for status in (400, 408, 413, 422, 429, 503)}
    posted: dict[str, Any] = {"methods": ["POST"], "responses": refusals}
    app.add_api_route("/translate", translate, summary="As LibreTranslate", response_model=LibreAnswer, **posted)
    summary = "With scores, tokens and alignments"
    app.add_api_route("/translations", translations, summary=summary, response_model=TranslationsAnswer, **posted)
    app.add_api_route("/attention", attention, summary="Attention weights", response_model=AttentionAnswer, **posted)


def _add_descriptions(app: "FastAPI", service: Service) -> None:
    """The page, and the paths that say what the server has."""
    from fastapi.responses import HTMLResponse

    html = page(service.directions(), service.limits.max_characters)
    headers = {
        "Content-Security-Policy": content_security_policy(html),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }

    async def index() -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    async def languages() -> list[Language]:
        return service.languages()

    async def models() -> list[Direction]:
        return service.directions()

    async def health() -> Health:
        return service.health()

    app.add_api_route("/", index, include_in_schema=False)
    app.add_api_route("/languages", languages, summary="Languages and their targets")
    app.add_api_route("/models", models, summary="Models and their languages")
    app.add_api_route("/health", health, summary="Whether requests are accepted", responses={503: {"model": Error}})


def _client(request: "Request") -> str:
    return request.client.host if request.client else ""


async def _answered(request: "Request", pending: Pending[Any]) -> Any:
    """The answer, when its results are there. Without its client, the request is dropped."""
    from fastapi import HTTPException

    results = asyncio.wrap_future(pending.future)
    try:
        while not (await asyncio.wait({results}, timeout=_POLL_S))[0]:
            if await request.is_disconnected():
                raise HTTPException(_GONE, "the client has gone")
        return pending.finish(results.result())
    except asyncio.CancelledError:  # the server waits no longer
        raise StoppingError("the server is stopping", 1) from None
    finally:
        results.cancel()


def _answer_errors(app: "FastAPI") -> None:
    """Let all errors be objects as LibreTranslate's, with one line of text."""
    from fastapi import HTTPException
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    def answer(status: int, message: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": one_line(message)}, status, headers)

    async def invalid(_: Any, error: Any) -> JSONResponse:
        return answer(422, _in_words(error.errors()))

    async def known(_: Any, error: Any) -> JSONResponse:
        return answer(error.status_code, str(error.detail), error.headers)

    async def refused(_: Any, error: Any) -> JSONResponse:
        status = 429 if isinstance(error, ClientBusyError) else 503
        return answer(status, str(error), {"Retry-After": str(error.retry_after_s)})

    async def of_user(_: Any, error: Any) -> JSONResponse:
        return answer({NoSuchModelError: 400, TooLargeError: 413}.get(type(error), 422), str(error))

    async def unexpected(_: Any, error: Any) -> JSONResponse:
        if is_out_of_memory(error):
            return answer(503, "out of memory", {"Retry-After": str(_RETRY_AFTER_S)})
        return answer(500, "internal error; the server's standard error has more")

    handlers: list[tuple[Any, Any]] = [
        (RequestValidationError, invalid),
        (HTTPException.__base__, known),  # Starlette's class, which the router raises
        (RefusedError, refused),
        (UserError, of_user),
        (Exception, unexpected),
    ]
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)


def _in_words(errors: Any) -> str:
    """The first of pydantic's errors, each with its field, but not with the value, which may be long."""
    found = []
    for error in errors[:_MOST_MESSAGES]:
        if error["type"] == "json_invalid":
            return "the body of the request is not JSON"
        found.append(f"{'.'.join(map(str, error['loc'][1:])) or 'body'}: {error['msg']}")
    return "; ".join(dict.fromkeys(found))
