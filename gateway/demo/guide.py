"""The lines that say how to use a demo, each ready to be copied into a shell."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_JSON = "-H 'Content-Type: application/json'"
_BEARER = f'-H "Authorization: Bearer $TOKEN" {_JSON}'


@dataclass(frozen=True, slots=True)
class Guide:
    """How to reach a demo: the gateway's address, the `gateway` command, and the users' passwords."""

    base: str
    command: str
    passwords: Mapping[str, str]

    def places(self) -> Iterator[str]:
        """Return what to open in a browser."""
        yield f"  API       {self.base}/docs"
        yield f"  Console   {self.base}/operator, for the users named operator and admin"

    def logins(self) -> Iterator[str]:
        """Return a line per user that logs in."""
        for name in self.passwords:
            yield f"  {name:9} {self._login(name)}"

    def trial(self) -> Iterator[str]:
        """Return the lines that create a room, get a token and show usage; the last two make minutes appear."""
        yield "Try it: log in, create a room, get a join token, show usage"
        yield f'  TOKEN=$({self._login("host")} | sed -nE \'s/.*"access_token":"([^"]+)".*/\\1/p\')'
        create = f'curl -s {self.base}/api/rooms {_BEARER} -d \'{{"name": "Standup"}}\''
        yield f'  ROOM=$({create} | sed -nE \'s/.*"room":\\{{"id":"([^"]+)".*/\\1/p\')'
        yield f'  curl -s {self.base}/api/rooms/$ROOM/token {_BEARER} -d \'{{"role": "host"}}\'; echo'
        yield f'  curl -s {self.base}/api/usage -H "Authorization: Bearer $TOKEN"; echo'
        yield ""
        yield "Minutes: let somebody join the room, then see what they have used"
        yield f"  {self.command} emulator join $ROOM --user member --for 3min"
        yield f"  {self.command} usage show"

    def _login(self, name: str) -> str:
        body = json.dumps({"username": name, "password": self.passwords[name]})
        return f"curl -s {self.base}/api/auth/login {_JSON} -d '{body}'"
