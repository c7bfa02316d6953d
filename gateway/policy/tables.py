"""The tables of a policy file, with their keys, types and bounds; and the texts of refusals."""

import re
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from gateway.policy.actions import COUNTERS, LIMITED_ACTIONS, SCOPES
from gateway.policy.presets import PRESETS
from limits.policy import MOST_UNITS

ROLE_NAME = re.compile(r"[ -=@-}]{1,64}")  # plain ASCII without ? > ~, which break the web client's atob
NAMES_ALLOWED = "plain ASCII without ? > ~, at most 64 characters"  # ROLE_NAME in words
INTERNAL = "__internal"  # 100ms's own roles begin so, such as __internal_recorder; no user joins with one
MOST_CHARS = 200
REMOVED = {"on_store_error": "is no longer a setting: remove it; without Redis no request is allowed"}
_NAMED = re.compile(r"Object (contains unknown|missing required) field `(.*)`", re.DOTALL)
_AT = re.compile(r" - at `\$\.(\w+)")


class PolicyError(Exception):
    """The policy file is wrong. The text is one line: file, key, reason."""


def _whole(least: int, most: int) -> Meta:
    return Meta(ge=least, le=most, description=f"a whole number from {least} to {most}")


def one_of(*choices: str) -> Meta:
    """Return the rule of a value that is one of some words."""
    return Meta(pattern=rf"^(?:{'|'.join(map(re.escape, choices))})\Z", description=f"one of: {', '.join(choices)}")


# A description completes "must be ..." in the refusal of a wrong value.
Units = Annotated[int, _whole(1, MOST_UNITS)]
People = Annotated[int, _whole(1, 2500)]
RoomsAtOnce = Annotated[int, _whole(1, 100_000)]
Flag = Annotated[bool, Meta(description="true or false")]
Strings = Annotated[tuple[str, ...], Meta(description="a list of strings")]
Text = Annotated[str, Meta(max_length=MOST_CHARS, description=f"a string of at most {MOST_CHARS} characters")]
Subtable = Annotated[dict[str, Any], Meta(description="a table")]
Rate = Annotated[str, Meta(min_length=1, description='a string such as "120/min"')]
TimeZone = Annotated[str, Meta(min_length=1, description='a string such as "Europe/Berlin"')]
Duration = Annotated[
    str, Meta(pattern=r"^[1-9][0-9]{0,5}(?:s|min|h|d)\Z", description='a duration such as "90s", "15min" or "2h"')
]
TemplateId = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{24}\Z", description="24 hexadecimal digits, as the 100ms dashboard shows them")
]


class Table(msgspec.Struct, forbid_unknown_fields=True):
    """One table of the file. Its fields are the keys that the table may have; one without a default is required."""


class PolicyTable(Table):
    """The whole file."""

    registration: Subtable = {}
    roles: Subtable = {}
    limits: Subtable = {}
    quotas: Subtable = {}
    templates: Subtable = {}
    reports: Subtable = {}
    prices: Subtable = {}
    rooms: Subtable = {}
    guests: Subtable = {}
    webhooks: Subtable = {}
    identity: Subtable = {}
    anonymous: Subtable = {}
    service_keys: Subtable = {}


class RegistrationTable(Table):
    """[registration]"""

    roles: Strings
    mode: Annotated[str, one_of("closed", "invite", "open")] = ""


class RoleTable(Table):
    """[roles.NAME]"""

    permissions: Strings = ()
    limits: Subtable = {}
    quotas: Subtable = {}
    open_rooms: Flag = True
    concurrent_rooms: RoomsAtOnce = 0
    max_participants: People = 0


class ServiceKeysTable(Table):
    """[service_keys]"""

    limits: Subtable = {}


class NumberTable(Table):
    """A number of a limit, of a role or of service keys."""

    rate: Rate
    burst: Units


class LimitTable(Table):
    """[limits.NAME]"""

    applies_to: Strings
    rate: Rate = ""
    burst: Units = 0
    cost: Units = 1
    strict: Flag = False
    shadow: Flag = False

    @property
    def actions(self) -> frozenset[str]:
        """The actions that are charged."""
        return LIMITED_ACTIONS if "*" in self.applies_to else frozenset(self.applies_to)

    @property
    def default(self) -> dict[str, Any]:
        """The defaults of a limit for roles that set no values of their own."""
        return {name: value for name, value in (("rate", self.rate), ("burst", self.burst)) if value}


class QuotaTable(Table):
    """[quotas.NAME]"""

    counter: Annotated[str, one_of(*sorted(COUNTERS))]
    period: Annotated[Literal["day", "week", "month"], Meta(description="one of: day, week, month")]
    amount: Units = 0
    time_zone: TimeZone = ""
    shadow: Flag = False
    scope: Annotated[str, one_of(*SCOPES)] = "user"
    on_exhausted: Annotated[str, one_of("refuse", "end")] = "refuse"


class ReportsTable(Table):
    """[reports]"""

    time_zone: TimeZone = "UTC"


class PricesTable(Table):
    """[prices]"""

    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z", description='a code of ISO 4217 such as "EUR"')]
    per_1000_minutes: Annotated[
        float, Meta(ge=0, le=1_000_000, description="a price from 0 to 1000000 with at most 6 decimals, such as 4.0")
    ]


class TemplateTable(Table):
    """[templates.ALIAS]"""

    id: TemplateId = ""
    owner: Strings = ()
    cohost: Strings = ()
    participant: Strings = ()
    viewer: Strings = ()


class RoomsTable(Table):
    """[rooms]"""

    access: Annotated[str, one_of("open", "invited")] = "open"
    region: Annotated[str, one_of("auto", "us", "eu", "in")] = "auto"
    size: People = 100
    max_duration: Duration = "12h"
    token_ttl: Duration = "1h"  # noqa: S105  a duration
    active_per_owner: RoomsAtOnce = 50
    unique_names: Flag = False


class GuestsTable(Table):
    """[guests]"""

    role: Annotated[str, Meta(description="the name of a role")]
    lasts: Duration = "12h"


class WebhookTable(Table):
    """[webhooks.NAME]"""

    url: Annotated[str, Meta(description="a string")]
    events: Strings
    allow_private: Flag = False


class IdentityTable(Table):
    """[identity.NAME]"""

    preset: Annotated[str, one_of(*PRESETS)] = ""
    issuer: Text = ""
    audience: Annotated[str | tuple[str, ...], Meta(description="a string or a list of strings")] = ()
    azp: Strings = ()
    algorithms: Strings = ()
    jwks: Text = ""
    jwks_file: Text = ""
    roles_claim: Text = ""
    roles: Subtable = {}
    name_claim: Text = ""
    create_accounts: Flag = False
    default_role: Text = ""


def in_words(message: str, table: type[Table]) -> tuple[str, str]:
    """Return the key of a table that msgspec's message is about, empty for the table itself, and what is wrong."""
    if named := _NAMED.fullmatch(message):
        what, key = named.groups()
        return key, REMOVED.get(key, "unknown key") if what == "contains unknown" else "is missing"
    if at := _AT.search(message):
        (meta,) = get_type_hints(table, include_extras=True)[at[1]].__metadata__
        return at[1], f"must be {meta.description}"
    return "", "must be a table"
