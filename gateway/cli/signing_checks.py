"""Checks the keys that sign access tokens (GATEWAY_SIGNING_KEY) for `gateway doctor`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from auth.signing_keys import SigningKeys
from gateway.cli.checks import Finding
from gateway.settings import Settings

MOST_AGE = timedelta(days=365)  # NIST SP 800-57 part 1, table 1: a private signature key is used for 1 to 3 years
_NAME, _FILE = "signing", "key file"


def check_signing(settings: Settings, path: Path | None) -> list[Finding]:
    """Judge the kind and age of the keys, and who can read or change their file."""
    if settings.token_keys is None:
        text = "access tokens are signed with GATEWAY_SECRET: only the gateway can verify them"
        return [Finding(_NAME, "ok", text)]
    made_by_file = datetime.fromtimestamp(path.stat().st_mtime, UTC) if path else None
    findings = [judge_keys(settings.token_keys, made_by_file, datetime.now(UTC))]
    if path is not None and (found := judge_mode(path)):
        findings.append(found)
    if settings.public_url.startswith("http://"):
        text = f"{settings.public_url} (GATEWAY_PUBLIC_URL) is not https: others could be given other keys on the way"
        findings.append(Finding("issuer", "WARN", text))
    return findings


def judge_keys(keys: SigningKeys, file_made: datetime | None, now: datetime) -> Finding:
    """Judge what signs, and since when. Without a remark of `gateway keys signing` a key is as old as its file."""
    first = keys.first
    if first is None:
        text = "no key signs, so GATEWAY_SECRET does; an hour after the restart, remove GATEWAY_SIGNING_KEY"
        return Finding(_NAME, "WARN", text)
    made = first.made or file_made
    following = sum(key.private is not None for key in keys.keys) - 1
    earlier = len(keys.keys) - following - 1
    text = f"{first.algorithm}, key {first.kid[:8]}…"
    if made is not None:
        text += f" of {made:%Y-%m-%d}"
    text += f", signs for {keys.issuer}; next keys: {following}, earlier ones that verify: {earlier}"
    if made is not None and now - made > MOST_AGE:
        return Finding(_NAME, "WARN", f"{text}; it is older than a year: gateway keys signing rotate, then restart")
    if not following:
        return Finding(_NAME, "ok", f"{text}; `gateway keys signing rotate` adds a next key")
    return Finding(_NAME, "ok", text)


def judge_mode(path: Path) -> Finding | None:
    """Judge who else can use the file, None if it is private. A group may read it: containers are given files so."""
    mode = path.stat().st_mode & 0o777
    name = f"{path} (mode {mode:04o})"
    if mode & 0o022:
        return Finding(_FILE, "FAIL", f"other users can change {name}, and so forge access tokens: chmod 600 it")
    if mode & 0o004:
        return Finding(_FILE, "WARN", f"every user of this machine can read {name}, and so forge tokens: chmod 600 it")
    return None
