"""The OpenAPI 3.1 document, made from the routes: their access, signatures, docstrings and annotated structs."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from litestar import Response
from litestar.handlers import HTTPRouteHandler
from litestar.params import BodyKwarg, CookieParameter, HeaderParameter, ParameterKwarg, PathParameter, QueryParameter

from gateway import __version__
from gateway.apidoc.components import HEADERS, PROBLEM, WEBHOOK_EVENT
from gateway.http.access import access_of
from gateway.http.dispatch import Download
from gateway.http.problem_codes import STATUS
from gateway.http.problems import MEDIA_TYPE, title_of
from gateway.policy.actions import ACTIONS, PERMISSIONS, RELATIONS, ROOM_ACTIONS
from gateway.settings import WEBHOOK_HEADER

_DESCRIPTION = """Login, limits, usage and role policy in front of 100ms live video.

Send the access token of a login as `Authorization: Bearer <access_token>`. Backends send a service key (`gwk_...`) in
its place, and in `X-Act-As` the id of the user for whom they act. Bodies are JSON of at most 16 KiB; a field or query
parameter that is not in this document is refused. Times are RFC 3339 in UTC. Errors are RFC 9457 problem documents with
a stable `code`. Every response to an authenticated caller reports their limits in the fields `RateLimit` and
`RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-11."""

_TAGS = {
    "/api/auth/": ("Login and account", "Tokens, sessions and passwords."),
    "/api/rooms": ("Rooms", "Rooms at 100ms, their members and invites, and tokens to join them."),
    "/api/invites": ("Rooms", ""),
    "/api/usage": ("Usage", "The caller's own limits and counters."),
    "/api/admin/": ("Administration", "Accounts, limits, usage and the audit trail, for operators."),
    "/.well-known/": ("Verification", "What other services need to verify access tokens."),
    "/hooks/": ("Webhooks", "Events of 100ms, by which minutes are counted."),
    "/health/": ("Operation", "Health checks."),
}
_PLACES = {PathParameter: "path", QueryParameter: "query", HeaderParameter: "header", CookieParameter: "cookie"}
_RULES = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
}
_FIELDS_OF = {401: ["WWW-Authenticate"], 429: ["Retry-After", "RateLimit", "RateLimit-Policy"], 503: ["Retry-After"]}
_DONE = {200: "Done", 201: "Created", 202: "In progress", 204: "Done; the response has no content"}


def describe(handlers: Iterable[HTTPRouteHandler]) -> dict[str, Any]:
    """Return the OpenAPI document of these routes."""
    handlers = list(handlers)
    # Litestar's own document loses defaults, limits of list items and "no other fields"; msgspec's schemas have them.
    kinds = [kind for handler in handlers for kind in (_body(handler), _result(handler)) if kind is not None]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    _always(schemas, kinds, taken={kind for handler in handlers if (kind := _body(handler))})
    for schema in schemas.values():
        _tidy(schema)
    components: dict[str, Any] = {
        "schemas": dict(sorted({**schemas, "Problem": PROBLEM, "WebhookEvent": WEBHOOK_EVENT}.items())),
        "headers": HEADERS,
        "parameters": {},
        "responses": {},
        "securitySchemes": {
            "login": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            "webhook": {"type": "apiKey", "in": "header", "name": WEBHOOK_HEADER},
        },
    }
    paths: dict[str, dict[str, Any]] = {}
    for handler in handlers:
        for path in sorted(handler.paths):
            for method in sorted(handler.http_methods):
                operation = _operation(handler, path, components)
                paths.setdefault(template_of(path), {})[str(method).lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "100ms gateway", "version": __version__, "description": _DESCRIPTION},
        "tags": [{"name": name, "description": text} for name, text in _TAGS.values() if text],
        "paths": paths,
        "components": {name: part for name, part in components.items() if part},
    }


def template_of(path: str) -> str:
    """Return a route's path as OpenAPI writes it: `/rooms/{room_id:str}` without the type."""
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)


def _hints(handler: HTTPRouteHandler) -> dict[str, Any]:
    return get_type_hints(handler.fn, include_extras=True)


def _body(handler: HTTPRouteHandler) -> Any:
    """Return the type of a route's body, None without one."""
    hint = _hints(handler).get("data")
    return hint.__origin__ if hint is not None and any(isinstance(one, BodyKwarg) for one in get_args(hint)) else None


def _result(handler: HTTPRouteHandler) -> Any:
    """Return the type of a route's JSON answer, None if it answers something else or nothing."""
    return next((kind for kind in _results(handler) if issubclass(kind, msgspec.Struct)), None)


def _results(handler: HTTPRouteHandler) -> list[type]:
    """Return the types of what a route answers; some answer JSON or a file, as the caller wishes."""
    hint = _hints(handler)["return"]
    if get_origin(hint) is Response:
        hint = get_args(hint)[0]
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return [kind for kind in kinds if isinstance(kind, type)]


def _always(schemas: dict[str, Any], kinds: Iterable[Any], *, taken: set[Any]) -> None:
    """Mark the fields that an answer always has as required; msgspec treats a field with a default as optional."""
    todo = list(msgspec.inspect.multi_type_info([kind for kind in kinds if kind not in taken]))
    seen = set()
    while todo:
        info = todo.pop()
        todo += getattr(info, "types", ())
        todo += [part for name in ("type", "item_type", "value_type") if (part := getattr(info, name, None))]
        if not isinstance(info, msgspec.inspect.StructType | msgspec.inspect.DataclassType) or info.cls in seen:
            continue
        seen.add(info.cls)
        todo += [field.type for field in info.fields]
        hints = get_type_hints(info.cls)
        sometimes = {field.encode_name for field in info.fields if msgspec.UnsetType in get_args(hints[field.name])}
        schema = schemas[info.cls.__name__]
        schema["required"] = [name for name in schema["properties"] if name not in sometimes]
        for field in schema["properties"].values():
            field.pop("default", None)


def _tidy(schema: dict[str, Any]) -> None:
    """Remove titles, which repeat the name, and move the description of a nullable type to the field."""
    schema.pop("title", None)
    for field in schema["properties"].values():
        for kind in field.get("anyOf", ()):
            for word in ("description", "examples"):
                if word in kind:
                    field.setdefault(word, kind.pop(word))


def _operation(handler: HTTPRouteHandler, path: str, components: dict[str, Any]) -> dict[str, Any]:
    text = inspect.cleandoc(handler.fn.__doc__ or "")
    summary = re.split(r"(?<=\.)\s+(?=[A-Z])|\n\n", text, maxsplit=1)[0]
    operation: dict[str, Any] = {
        "operationId": handler.handler_name,
        "summary": " ".join(summary.split()).removesuffix("."),
        "tags": [next(tag for stem, (tag, _) in _TAGS.items() if path.startswith(stem))],
        "x-who": who(handler),
    }
    if summary != text:
        operation["description"] = text
    access = access_of(handler)
    if not access.is_public:
        # OpenAPI 3.1 lets any scheme name the roles that a call requires: here permissions.
        needed = ACTIONS[access.action]
        operation["security"] = [{}] if access.guests else []
        operation["security"] += [{"login": [needed] if needed else []}]
    if parameters := [_shared(one, components["parameters"]) for one in _parameters(handler)]:
        operation["parameters"] = parameters
    if body := _body(handler):
        schema = components["schemas"][body.__name__]
        example = {name: rules["examples"][0] for name, rules in schema["properties"].items() if "examples" in rules}
        content: dict[str, Any] = {"schema": _ref("schemas", body.__name__)}
        if example and example.keys() >= set(schema["required"]):
            content["example"] = example
        required = bool(schema["required"])
        operation["requestBody"] = {"required": required, "content": {"application/json": content}}
        if access.form:
            operation["requestBody"]["content"]["application/x-www-form-urlencoded"] = {"schema": content["schema"]}
    if access.webhook:
        operation["security"] = [{"webhook": []}]
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref("schemas", "WebhookEvent")}},
        }
    operation["responses"] = _responses(handler, operation, components["responses"])
    return operation


def who(handler: HTTPRouteHandler) -> str:
    """Return in words which callers the policy allows a route."""
    access = access_of(handler)
    if access.webhook:
        return "100ms, with the webhook's secret"
    if access.is_public:
        return "anyone with a token of the session" if "invalid_token" in access.refuses else "anyone"
    permission, rule = ACTIONS[access.action], ROOM_ACTIONS.get(access.action)
    if permission is not None and permission not in PERMISSIONS:
        return f"service keys with the scope `{permission}`"
    needs = f"with the permission `{permission}`" if permission else ""
    if access.guests:
        return f"users {needs}; anyone with an invite for guests"
    if rule is None:
        return f"users {needs}" if needs else "all users who are logged in"
    relations = [relation for relation in RELATIONS if relation in rule.relations]
    is_open_to_all = len(relations) == len(RELATIONS)
    text = "users with a relation to the room" if is_open_to_all else f"{' or '.join(relations)} of the room"
    text += f" and the permission `{permission}`" if permission else ""
    return f"{text}; or users with the permission `{rule.anywhere}`" if rule.anywhere else text


def _parameters(handler: HTTPRouteHandler) -> Iterator[dict[str, Any]]:
    defaults = inspect.signature(handler.fn).parameters
    for name, hint in _hints(handler).items():
        rules = next((one for one in get_args(hint) if isinstance(one, ParameterKwarg)), None)
        if get_origin(hint) is not Annotated or rules is None:
            continue
        kinds = [kind for kind in get_args(hint.__origin__) or (hint.__origin__,) if kind is not type(None)]
        metas = [one for one in get_args(hint) if isinstance(one, msgspec.Meta)]
        (schema,), _ = msgspec.json.schema_components([Annotated[kinds[0], *metas]] if metas else kinds[:1])
        schema |= {word: value for rule, word in _RULES.items() if (value := getattr(rules, rule)) is not None}
        default = defaults[name].default
        if default not in (None, "", inspect.Parameter.empty):
            schema["default"] = default
        description = schema.pop("description", rules.description)
        yield {
            "name": rules.name or name,
            "in": _PLACES[type(rules)],
            "description": description,
            "required": default is inspect.Parameter.empty,
            "schema": schema,
        }


def _shared(parameter: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter of a path as a reference: many paths have it."""
    name = parameter["name"]
    if parameter["in"] != "path" or parts.setdefault(name, parameter) != parameter:
        return parameter
    return _ref("parameters", name)


def _responses(handler: HTTPRouteHandler, operation: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": _DONE[handler.status_code], "headers": _fields("X-Request-Id")}
    if not access_of(handler).is_public:
        answer["headers"] |= _fields("RateLimit", "RateLimit-Policy")
    if any(one.get("name") == "Idempotency-Key" for one in operation.get("parameters", ())):
        answer["headers"] |= _fields("Idempotency-Replayed")
    if result := _result(handler):
        answer["content"] = {"application/json": {"schema": _ref("schemas", result.__name__)}}
        if Download in _results(handler):
            answer["content"]["text/csv"] = {"schema": {"type": "string"}}
    elif handler.status_code != 204:
        answer["content"] = {str(handler.media_type or "text/plain"): {"schema": {"type": "string"}}}
    responses = {str(handler.status_code): answer}
    by_status: dict[int, list[str]] = {}
    for code in _codes(operation, handler):
        by_status.setdefault(STATUS[code], []).append(code)
    for status, codes in sorted(by_status.items()):
        name = ".".join([str(status), *codes])
        parts.setdefault(name, _refusal(status, codes))
        responses[str(status)] = _ref("responses", name)
    if access_of(handler).unready:
        responses["503"] = {**answer, "description": "Something is unavailable"}
    return responses


def _codes(operation: Mapping[str, Any], handler: HTTPRouteHandler) -> list[str]:
    """Return every code a route may answer with: its own, and those that follow from its access and parameters."""
    access = access_of(handler)
    # A query parameter that a route does not have is refused everywhere.
    codes: list[str] = ["invalid_request", *access.refuses]
    if "requestBody" in operation and not access.webhook:
        codes += ["payload_too_large", "unsupported_media_type"]
    if access.concerns_room:
        codes += ["not_found", "forbidden"]
    if not access.is_public:
        codes += ["invalid_token", "token_expired", "forbidden"]
        if access.is_charged:
            codes += ["rate_limited", "quota_exceeded", "cost_exceeds_limit"]
    elif access.throttled:
        codes.append("rate_limited")
    if not access.unready:
        codes += ["unavailable", "rate_limited", "internal"]
    order = list(STATUS)
    if any("{" in path for path in handler.paths):
        codes.append("not_found")  # for a value that is written in another than the normal form
    return sorted(set(codes), key=order.index)


def _refusal(status: int, codes: list[str]) -> dict[str, Any]:
    fields = ["X-Request-Id", *_FIELDS_OF.get(status, ())]
    only = {"properties": {"code": {"enum": codes}, "status": {"const": status}}}
    at_times = {"Retry-After": HEADERS["Retry-After"] | {"required": False}} if "idempotency_conflict" in codes else {}
    return {
        "description": f"{title_of(status)}: {', '.join(f'`{code}`' for code in codes)}",
        "headers": _fields(*fields) | at_times,
        "content": {MEDIA_TYPE: {"schema": {"allOf": [_ref("schemas", "Problem"), only]}}},
    }


def _fields(*names: str) -> dict[str, Any]:
    return {name: _ref("headers", name) for name in names}


def _ref(kind: str, name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/{kind}/{name}"}
