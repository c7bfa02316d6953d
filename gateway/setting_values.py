"""Reads single values of settings from a mapping; refuses what cannot be right in one line that names the setting."""

import errno
import ipaddress
import re
import ssl
from collections.abc import Mapping
from itertools import pairwise
from urllib.parse import urlsplit

MIN_SECRET_BYTES = 32
_OTHER_HEADERS = {"connection", "content-length", "content-type", "host", "transfer-encoding", "user-agent"}
_SAMPLER = "parentbased_traceidratio"
_SAMPLERS = (_SAMPLER, "parentbased_always_on", "parentbased_always_off", "traceidratio", "always_on", "always_off")
_COMPRESSIONS = ("none", "gzip", "deflate")
# OpenTelemetry's SDK would replace wrong values of these by a default, or ignore them.
_OTEL_CHOICES = {
    "OTEL_SDK_DISABLED": ("false",),  # GATEWAY_TRACES says that
    "OTEL_TRACES_EXPORTER": ("otlp",),
    "OTEL_TRACES_SAMPLER": _SAMPLERS,
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("http/protobuf",),
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ("http/protobuf",),
    "OTEL_EXPORTER_OTLP_COMPRESSION": _COMPRESSIONS,
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": _COMPRESSIONS,
}
_QUEUE, _BATCH, _MOST_QUEUE = 2048, 512, 65_536  # spans; the first two are the SDK's
_DELAY_MS, _MOST_DELAY_MS = 5000, 60_000
SAMPLED_RATIO = "0.05"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Matches whole words or the whole value: a random secret may contain any three letters, and one in 32,768 begins with
# "my-". A text written by hand consists of words, each in one case.
_PLACEHOLDERS = re.compile(
    r"^(your|example)[_-]|change[_-]?me|placeholder|^x+$|(^|[_-])(secret|password)$|^<.*>$"
    r"|^(?-i:[Mm]y([_-][A-Z]?[a-z0-9]+)+|MY([_-][A-Z0-9]+)+)$",
    re.IGNORECASE,
)
_RUNS = ("abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {first + second for run in _RUNS for text in (run, run[::-1]) for first, second in pairwise(text)}


class SettingsError(Exception):
    """A setting is missing or wrong. The text is one line that names the setting and holds no secret."""


def required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set")
    if _PLACEHOLDERS.search(value):
        raise SettingsError(f"{name} still holds a placeholder")
    return value


def secret(env: Mapping[str, str], name: str) -> str:
    value = required(env, name)
    if len(value.encode()) < MIN_SECRET_BYTES:
        raise SettingsError(f"{name} must have at least {MIN_SECRET_BYTES} bytes")
    if len(set(value)) < 10:
        raise SettingsError(f"{name} is not random: it has fewer than 10 different characters")
    if _is_repetition(value) or _is_sequence(value):
        raise SettingsError(f"{name} is not random: it repeats a shorter text or follows a sequence")
    return value


def _is_repetition(value: str) -> bool:
    """Return whether a text repeats a shorter one; the last repetition may be incomplete."""
    text = value.lower()
    return any(text[period:] == text[:-period] for period in range(1, len(text) // 2 + 1))


def _is_sequence(value: str) -> bool:
    """Return whether three quarters of the characters are next to their predecessor in the alphabet or on the keyboard.

    Of 32 random hexadecimal digits fewer than one in 10**11 does.
    """
    text = value.lower()
    steps = [first == second or first + second in _NEIGHBOURS for first, second in pairwise(text)]
    return 4 * sum(steps) >= 3 * len(steps)


def secrets(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return a comma-separated list of secrets."""
    parts = [part.strip() for part in required(env, name).split(",")]
    secrets = tuple(secret({name: part}, name) for part in parts)
    if len(set(secrets)) < len(secrets):
        raise SettingsError(f"{name} lists the same secret twice")
    return secrets


def header(env: Mapping[str, str], name: str, default: str) -> str:
    value = env.get(name) or default
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", value) or value.lower() in _OTHER_HEADERS:
        raise SettingsError(f"{name} must be the name of a header of your own, such as {default}")
    return value


def address(env: Mapping[str, str], name: str) -> tuple[str, int] | None:
    """Return host and port to listen on, None if the setting is not set. An IPv6 address stands in brackets."""
    value = env.get(name)
    if not value:
        return None
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z.-]+)):([0-9]{1,5})", value)
    if found is None or not 1 <= int(found[3]) <= 65535:
        raise SettingsError(f"{name} must look like 127.0.0.1:8001 or [::1]:8001")
    return found[1] or found[2], int(found[3])


def number(env: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = env.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise SettingsError(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def choice(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = env.get(name) or choices[0]
    if value not in choices:
        raise SettingsError(f"{name} must be one of: {', '.join(filter(None, choices))}")
    return value


def http_url(env: Mapping[str, str], name: str, default: str) -> str:
    value = (env.get(name) or default).rstrip("/")
    try:
        parts = urlsplit(value)
        local = parts.hostname is not None and is_local(parts.hostname)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        local = valid = False
        parts = urlsplit("")
    if not valid or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise SettingsError(f"{name} must be an https:// address (http:// only for a host of your own network)")
    if parts.username or parts.query or parts.fragment:
        raise SettingsError(f"{name} must be a plain address, without credentials, query or fragment")
    return value


def is_local(host: str) -> bool:
    """Return whether a host is local: a bare name (compose), or a loopback or private address."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host


def is_loopback(url: str) -> bool:
    """Return whether a checked address is one of this machine only."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def networks(env: Mapping[str, str], name: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in env.get(name, "").split(",") if part.strip())
    except ValueError as error:
        raise SettingsError(f"{name} must be a comma-separated list of networks such as 10.0.0.0/8: {error}") from None


def authorities(value: str) -> ssl.SSLContext:
    """Return a context that trusts only the certificates of a PEM file, or of its text. Raises: OSError

    For all versions of Python alike: one that is not self-signed is trusted too, and the own CAs of platforms need not
    have all extensions of RFC 5280.
    """
    is_text = "-----BEGIN" in value
    text = value.replace("\\n", "\n") if is_text else None
    context = ssl.create_default_context(cafile=None if is_text else value, cadata=text)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def fault_of(error: OSError) -> str:
    """Say in words why a file of certificates, or another file, cannot be read; without its name."""
    if isinstance(error, ssl.SSLError):
        return "it holds no certificate that can be read"
    said = {errno.ENOENT: "there is no such file", errno.EACCES: "its permissions forbid it"}
    return said.get(error.errno or 0) or (error.strerror or type(error).__name__).lower()


def fingerprints(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return a comma-separated list of SHA-256 fingerprints of certificates, as 64 hexadecimal digits each."""
    given = [part.strip() for part in env.get(name, "").split(",")] if env.get(name) else []
    if not all(re.fullmatch(r"([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}|[0-9A-Fa-f]{64}", part) for part in given):
        raise SettingsError(
            f"{name} must be the SHA-256 of a certificate: 64 hexadecimal digits, in pairs with or without colons;"
            " several are separated by commas"
        )
    return tuple(part.replace(":", "").lower() for part in given)


def origins(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    origins = tuple(part.strip().rstrip("/") for part in env.get(name, "").split(",") if part.strip())
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+?(:([0-9]{1,5}|\*))?", origin):
            raise SettingsError(
                f"{name}: {origin!r} is not an origin such as https://app.example.com (a port may be *)"
            )
    if "*" in origins and len(origins) > 1:
        # Only listed origins get credentials: together with * the list would be meaningless.
        raise SettingsError(f"{name}: * allows every origin, without credentials; use it alone")
    return tuple(as_browsers_write(origin) for origin in origins)


def as_browsers_write(origin: str) -> str:
    """Return an origin as browsers send it: in lower case, without the scheme's default port."""
    origin = origin.lower()
    return origin.removesuffix(":443" if origin.startswith("https://") else ":80")


def open_telemetry(env: Mapping[str, str]) -> dict[str, str]:
    """Return OpenTelemetry's own variables (OTEL_*) with our defaults, once they are checked. Raises: SettingsError"""
    given = {name: value for name, value in env.items() if name.startswith("OTEL_") and value}
    for name, choices in _OTEL_CHOICES.items():
        choice(given, name, choices)
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        _check_collector(given.get(name, "http://localhost"), name)
    number(given, "OTEL_BSP_SCHEDULE_DELAY", _DELAY_MS, 1, _MOST_DELAY_MS)
    queue = number(given, "OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE, _BATCH, _MOST_QUEUE)
    number(given, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH, 1, queue)
    if not re.fullmatch(r"0|1|0?\.[0-9]{1,9}|[01]\.0{1,9}", given.get("OTEL_TRACES_SAMPLER_ARG", "1")):
        raise SettingsError("OTEL_TRACES_SAMPLER_ARG must be a share from 0 to 1, such as 0.05")
    if "OTEL_TRACES_SAMPLER" not in given:
        given["OTEL_TRACES_SAMPLER"] = _SAMPLER
        given.setdefault("OTEL_TRACES_SAMPLER_ARG", SAMPLED_RATIO)
    if "service.name=" not in given.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        given.setdefault("OTEL_SERVICE_NAME", "hms-gateway")
    return given


def _check_collector(value: str, name: str) -> None:
    """Check the address of a collector. It may be http:// anywhere: spans hold no secret and no user's id."""
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.username or parts.query or parts.fragment:
        raise SettingsError(f"{name} must be an http:// or https:// address, without credentials, query or fragment")
