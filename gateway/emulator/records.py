"""The records of a workspace, in the form of the state file."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from gateway.emulator.wire import instant_ns

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110, section 5.6.2


class UploadInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a recording is stored (api-reference/Rooms/create-via-api)."""

    type: Literal["s3", "gs", "oss", "azure"]
    location: Annotated[str, msgspec.Meta(min_length=1)]
    prefix: str = ""
    options: dict[str, Any] | None = None
    credentials: dict[str, Any] | None = None


class RecordingInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The recording settings of a room. Without them the template's settings apply."""

    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    upload_info: UploadInfo | None = None


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """The URL that receives events, and the headers to send with them."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s]+$")]
    headers: dict[str, str] = {}


def parse_webhook(url: str, headers: Iterable[str]) -> Webhook:
    """Read a webhook from text, with each header as `NAME=VALUE`. Raises ValueError, without a header's value."""
    pairs = [header.partition("=") for header in headers]
    for name, equals, _ in pairs:
        if not equals or not _HEADER_NAME.fullmatch(name):
            raise ValueError("a header must be NAME=VALUE")
    content = {"url": url, "headers": {name: value for name, _, value in pairs}}
    try:
        return msgspec.convert(content, Webhook)
    except msgspec.ValidationError:
        raise ValueError("the URL must begin with http:// or https:// and contain no space") from None


class Room(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A room. The fields of a reply differ by endpoint."""

    id: str
    name: str
    template_id: str
    region: str
    created_at: str
    updated_at: str | None = None
    enabled: bool = True
    description: str = ""
    recording_info: RecordingInfo | None = None
    large_room: bool = False
    size: int = 0
    max_duration_seconds: int | None = None
    polls: tuple[str, ...] = ()
    webhook: Webhook | None = None

    def __post_init__(self) -> None:
        instant_ns(self.created_at)  # an edited state file must fail when it is read, not later in a listing


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A template. `body` contains what callers sent, unknown keys included, and always `name` and `roles`."""

    id: str
    created_at: str
    updated_at: str
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the name, which is unique in the workspace."""
        return str(self.body["name"])

    @property
    def roles(self) -> dict[str, dict[str, Any]]:
        """Return the roles by their case-sensitive name."""
        roles: dict[str, dict[str, Any]] = self.body["roles"]
        return roles

    def __post_init__(self) -> None:
        msgspec.convert(self.body, _TemplateCore)


class _TemplateCore(msgspec.Struct):
    name: str
    roles: dict[str, dict[str, Any]]


class RoomCode(msgspec.Struct, frozen=True, kw_only=True):
    """A code that admits its holder to a room in a role."""

    code: str
    room_id: str
    role: str
    enabled: bool
    created_at: str
    updated_at: str


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """A media track of a peer (api-reference/active-rooms/retrieve-peer)."""

    id: str
    stream_id: str
    mute: bool
    type: Literal["audio", "video"]
    source: Literal["regular", "screen"]
    started_at: str
    description: str = ""


class Peer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client in a room, from its join to its leave. Only a connected peer has tracks."""

    id: str
    user_id: str
    role: str
    joined_at: str
    name: str = ""
    metadata: str = ""
    type: Literal["regular", "sip"] = "regular"
    left_at: str | None = None
    tracks: dict[str, Track] = {}

    def __post_init__(self) -> None:
        instant_ns(self.joined_at)
        if self.left_at is not None:
            instant_ns(self.left_at)


class Session(msgspec.Struct, kw_only=True):
    """A room from its first join until it is empty. The only record that changes in place.

    Keeps peers that have left. A peer that rejoins under its old id replaces the old entry, because the documented map
    has one entry per id.
    """

    id: str
    room_id: str
    created_at: str
    updated_at: str
    active: bool
    peers: dict[str, Peer]

    def __post_init__(self) -> None:
        instant_ns(self.created_at)
        instant_ns(self.updated_at)

    def connected(self) -> list[Peer]:
        """Return the peers in the room now, in the order of their joins."""
        return [peer for peer in self.peers.values() if peer.left_at is None]

    def close(self, at: str) -> None:
        """End the session and let all connected peers leave at this time."""
        for peer in self.connected():
            self.peers[peer.id] = msgspec.structs.replace(peer, left_at=at, tracks={})
        self.updated_at, self.active = at, False
