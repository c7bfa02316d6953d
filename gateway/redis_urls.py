"""Reads REDIS_URL where it names several servers: the nodes of a cluster, or the Sentinels that know the master."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from gateway.setting_values import SettingsError

_URL = re.compile(r"(rediss?)\+(cluster|sentinel)://(?:([^/?#]*)@)?([^/?#@]*)(/[^?#]*)?(?:\?([^#]*))?")
_NODE = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_PORTS = {"cluster": 6379, "sentinel": 26379}
_OF_SENTINELS = ("sentinel_username", "sentinel_password")
TRUST = ("ca", "fingerprint")  # which certificates are accepted: see `gateway.settings.redis_trust`


@dataclass(frozen=True, slots=True, repr=False)
class SeveralServers:
    """A URL with several nodes; each is `host:port`. Of Sentinels, also the service that they watch.

    `users` are the credentials as they stand in a URL, of the servers with data and of the Sentinels.
    """

    scheme: str  # redis or rediss
    nodes: tuple[str, ...]
    service: str  # empty: a cluster
    database: str
    users: tuple[str, str]
    trust: str

    def server(self, node: str) -> str:
        """Return the URL of one server with data."""
        return self._url(self.users[0], node, self.database)

    def sentinel(self, node: str) -> str:
        """Return the URL of one Sentinel."""
        return self._url(self.users[1], node, "0")

    def _url(self, user: str, node: str, database: str) -> str:
        query = f"?{self.trust}" if self.trust else ""
        return f"{self.scheme}://{user}{'@' if user else ''}{node}/{database}{query}"


def is_several(url: str) -> bool:
    """Tell whether a URL says redis+cluster, redis+sentinel or one of the two with TLS."""
    return re.match(r"rediss?\+", url) is not None


def read_several(url: str) -> SeveralServers:
    """Read the URL of a cluster or of Sentinels. Raises: SettingsError, which names the rule and never the URL"""
    found = _URL.fullmatch(url)
    if found is None:
        raise SettingsError(
            "REDIS_URL must look like redis+cluster://host:6379,host:6379 or"
            " redis+sentinel://host:26379,host:26379/service (rediss+... with TLS)"
        )
    scheme, kind, user, nodes, path, query = found.groups(default="")
    service, database = _service(path) if kind == "sentinel" else _no_database(path)
    ours, trust = _options(query, allowed=_OF_SENTINELS if kind == "sentinel" else ())
    name, password = (quote(ours.get(option, ""), safe="") for option in _OF_SENTINELS)
    if name and not password:
        raise SettingsError("REDIS_URL: sentinel_username needs a sentinel_password")
    users = (_user(user), f"{name}:{password}" if password else "")
    return SeveralServers(scheme, _nodes(nodes, _PORTS[kind]), service, database, users, trust)


def _nodes(text: str, port: int) -> tuple[str, ...]:
    nodes = []
    for part in text.split(","):
        found = _NODE.fullmatch(part)
        if found is None or not 0 < int(found[2] or port) < 65536:
            raise SettingsError("REDIS_URL: nodes must be host:port, separated by commas, with ports from 1 to 65535")
        nodes.append(f"{found[1]}:{found[2] or port}")
    return tuple(nodes)


def _user(text: str) -> str:
    name, colon, password = text.partition(":")
    if text and not (colon and password):
        raise SettingsError("REDIS_URL: before the @ there must be user:password@ or :password@")
    if "@" in text or ":" in password:
        raise SettingsError("REDIS_URL: in a user or password, : must be written %3A and @ must be written %40")
    return f"{name}:{password}" if text else ""


def _service(path: str) -> tuple[str, str]:
    found = re.fullmatch(r"/([^/]+)(?:/([0-9]{1,4})?)?", path)
    if found is None:
        raise SettingsError(
            "REDIS_URL must name, after the Sentinels, the service that they watch, and may name a database:"
            " redis+sentinel://host:26379/service/0"
        )
    return unquote(found[1]), found[2] or "0"


def _no_database(path: str) -> tuple[str, str]:
    if path not in ("", "/", "/0"):
        raise SettingsError("REDIS_URL: a cluster has only database 0; leave out what follows the nodes")
    return "", "0"


def _options(query: str, *, allowed: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """Return the options of a URL, and unchanged the part of its query that is about certificates."""
    ours: dict[str, str] = {}
    trust = []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name in TRUST:
            trust.append(part)
        elif name in allowed and value and name not in ours:
            ours[name] = unquote(value)
        else:
            rule = f"only {' and '.join(allowed)}, each once" if allowed else "nothing for a cluster"
            raise SettingsError(f"REDIS_URL: allowed after the ?: {rule}")
    return ours, "&".join(trust)
