"""`gateway keys signing`: the keys that sign access tokens (GATEWAY_SIGNING_KEY), in a file of their own."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from auth.signing_keys import (
    KINDS,
    MOST_KEYS,
    BadSigningKeys,
    SigningKey,
    kind_of,
    make_key,
    read_file,
    rotated,
    stopped,
    write_keys,
)
from auth.tokens import MOST_TTL_S
from gateway.cli.failures import CommandError
from gateway.cli.terminal import CSV, DURATION, JSON, print_json, print_list, say, table_of
from gateway.files import write_whole
from gateway.settings import load_env, signing_key_path

FILE = click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
_KNOWN_AFTER = timedelta(hours=1)  # services keep a key set for minutes
_RESTART = "Restart the gateway to use it: every session stays logged in."


@click.group()
def signing() -> None:
    """Keys that sign access tokens.

    With their public halves other services can verify the tokens (docs/tokens.md).

    FILE is the file that GATEWAY_SIGNING_KEY names, if it is not given. Its first private key signs. The next one is
    in it already, and so are the public halves of earlier ones: every rotation has been published long before.
    """


@signing.command(epilog="Example: gateway keys signing new signing.pem")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], show_default=True, help="ES256 or EdDSA tokens.")
@JSON
def new(file: Path, kind: str, as_json: bool) -> None:
    """Write a new file with a key that signs and the next one."""
    keys = new_keys(file, kind)
    if as_json:
        print_json(_plain(file, keys))
        return
    say(f"Wrote {file}: the {keys[0].algorithm} key {keys[0].kid} signs, {keys[1].kid} is the next one.")
    say(f"Set GATEWAY_SIGNING_KEY={file} and GATEWAY_PUBLIC_URL, and restart the gateway.")


def new_keys(file: Path, kind: str) -> tuple[SigningKey, ...]:
    """Write a file with two new keys; only its owner can read it. Raises: CommandError, if there is one already"""
    if file.exists():
        raise CommandError(f"{file} exists already; `gateway keys signing rotate` gives it a new key")
    now = _now()
    keys = (make_key(kind, now), make_key(kind, now))
    _write(file, keys, 0o600)
    return keys


@signing.command(epilog="Example: gateway keys signing rotate --keep 2d")
@FILE
@click.option("--kind", type=click.Choice(KINDS), help="Kind of the next key.  [default: that of the present one]")
@click.option("--keep", type=DURATION, default="1d", show_default=True, help="For how long earlier keys verify.")
@JSON
def rotate(file: Path | None, kind: str | None, keep: int, as_json: bool) -> None:
    """Let the next key sign, and add a new one after it.

    The present key verifies for as long as --keep, at least 1h; its private half is removed. A key that leaked is not
    rotated but replaced: write a new file. Then every user's next request is refused once, and apps refresh.
    """
    if keep < MOST_TTL_S:
        raise CommandError("--keep: tokens live up to 1h, so earlier keys verify for at least 1h")
    path, keys = _read(file)
    now = _now()
    after = rotated(keys, kind or kind_of(keys[0]), now, timedelta(seconds=keep))
    if len(after) > MOST_KEYS:
        raise CommandError(f"{path} would have more than {MOST_KEYS} keys; a shorter --keep drops earlier ones")
    _replace(path, after)
    if as_json:
        print_json(_plain(path, after))
        return
    say(f"{path}: the {after[0].algorithm} key {after[0].kid} signs, {after[1].kid} is the next one. {_RESTART}")
    if (after[0].made or now) > now - _KNOWN_AFTER:
        say("Warning: this key is new. A service that has fetched the keys before refuses its tokens at first.")


@signing.command(epilog="Example: gateway keys signing stop")
@FILE
@JSON
def stop(file: Path | None, as_json: bool) -> None:
    """Let no key of the file sign; all of them verify. The private halves are removed.

    Access tokens are then signed as without GATEWAY_SIGNING_KEY. Remove that setting an hour after the restart.
    """
    path, keys = _read(file)
    after = stopped(keys, _now())
    _replace(path, after)
    if as_json:
        print_json(_plain(path, after))
    else:
        say(f"{path}: no key signs, {len(after)} verify. {_RESTART} An hour later, remove GATEWAY_SIGNING_KEY.")


@signing.command("list", epilog="Example: gateway keys signing list")
@FILE
@CSV
@JSON
def list_(file: Path | None, as_csv: bool, as_json: bool) -> None:
    """Show the keys of the file: what each is for, and since when."""
    path, keys = _read(file)
    rows = [(key.kid, key.algorithm, use, _date(key.retired or key.made)) for key, use in _uses(keys)]
    table = table_of(("Key", "Algorithm", "Use", "Since"), rows)
    print_list(_plain(path, keys), table, as_json=as_json, as_csv=as_csv)


def _read(file: Path | None) -> tuple[Path, tuple[SigningKey, ...]]:
    path = file or signing_key_path(load_env())
    if path is None:
        raise CommandError("name the FILE of the keys: GATEWAY_SIGNING_KEY names none")
    try:
        return path, read_file(path)
    except BadSigningKeys as error:
        raise CommandError(f"{path}: {error}") from None


def _replace(path: Path, keys: Sequence[SigningKey]) -> None:
    """Replace the file by one with the same owner and mode: the gateway may run as another user."""
    path = path.resolve()  # it may be a link
    before = path.stat()
    _write(path, keys, before.st_mode & 0o777)
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.chown(path, before.st_uid, before.st_gid)
        except OSError as error:
            raise CommandError(f"{path} was written, but not given back to its owner: {error.strerror}") from error


def _write(path: Path, keys: Sequence[SigningKey], mode: int) -> None:
    try:
        write_whole(path, write_keys(keys), mode=mode)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error


def _uses(keys: Sequence[SigningKey]) -> list[tuple[SigningKey, str]]:
    private = [key for key in keys if key.private is not None]
    uses = {key.kid: "next" for key in private} | {key.kid: "signs" for key in private[:1]}
    return [(key, uses.get(key.kid, "verifies")) for key in keys]


def _plain(path: Path, keys: Sequence[SigningKey]) -> dict[str, Any]:
    return {
        "file": str(path),
        "keys": [
            {
                "kid": key.kid,
                "algorithm": key.algorithm,
                "use": use,
                "made_at": _date(key.made) or None,
                "retired_at": _date(key.retired) or None,
            }
            for key, use in _uses(keys)
        ],
    }


def _date(at: datetime | None) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}" if at else ""


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
