"""`gateway init`: checks and writes the settings of a new installation."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import click

from gateway.cli.failures import CommandError
from gateway.cli.init_answers import COMPOSE_REDIS, Answers, complete, quoted
from gateway.cli.init_checks import Wrong
from gateway.cli.terminal import JSON, print_json, say
from gateway.files import write_whole
from gateway.hms.replies import HmsTemplate
from gateway.metering.intake import PATH
from gateway.policy.effective import policy_of
from gateway.policy.file import BUILT_IN, parse_policy
from gateway.policy.model import Policy
from gateway.policy.tables import NAMES_ALLOWED
from gateway.policy.templates import (
    NoMapping,
    missing_roles,
    policy_text,
    privileged_mints,
    recommended_mapping,
    unusable_names,
)
from gateway.settings import DEFAULT_HMS_API_URL, Settings, in_compose, process_env

_ENV, _POLICY, _KEYS = ".env", "policy.toml", "signing.pem"
_COMPOSE_POLICY = "deploy/policy/policy.toml"  # in the folder that docker-compose.yml mounts


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to write: `.env`, a policy if the built-in one does not fit the template, and signing keys if wanted."""

    env: dict[str, str]
    policy: str = ""
    policy_file: str = _POLICY
    keys: str = ""
    notes: tuple[str, ...] = ()

    def files(self) -> list[tuple[Path, str, int]]:
        """Return path, text and mode of each file, `.env` after those that it points at."""
        files = [(Path(_ENV), _env_text(self.env), 0o600)]
        if self.policy:  # readable by all, since a container runs as another user
            files.insert(0, (Path(self.policy_file), self.policy, 0o644))
        if self.keys:
            files.insert(0, (Path(_KEYS), self.keys, 0o600))
        return files


@click.command("init", epilog="Example: gateway init --public-url https://gateway.example.com")
@click.option(
    "--redis-url", "REDIS_URL", metavar="URL", help="REDIS_URL; set one with a password in the environment instead."
)
@click.option("--template-id", "HMS_TEMPLATE_ID", metavar="ID", help="HMS_TEMPLATE_ID.")
@click.option("--api-url", "HMS_API_URL", metavar="URL", help=f"HMS_API_URL.  [default: {DEFAULT_HMS_API_URL}]")
@click.option(
    "--public-url", "GATEWAY_PUBLIC_URL", metavar="URL", help="GATEWAY_PUBLIC_URL, where 100ms reaches the gateway."
)
@click.option(
    "--signing-key", is_flag=True, help=f"Sign access tokens with new keys in {_KEYS}, which other services can verify."
)
@click.option(
    "--offline", is_flag=True, help="Connect neither to 100ms nor to Redis: check only the form of the values."
)
@click.option("--force", is_flag=True, help="Replace existing files without asking; backups are kept.")
@JSON
def init(signing_key: bool, offline: bool, force: bool, as_json: bool, **given: str | None) -> None:
    """Write `.env` with new secrets into this folder, and `policy.toml` if the roles of your template need one.

    Asks for values that no option and no variable gives: REDIS_URL, HMS_APP_ACCESS_KEY, HMS_APP_SECRET (not shown),
    HMS_TEMPLATE_ID and, if you like, GATEWAY_PUBLIC_URL and keys that sign access tokens. The access key and the secret
    have no options, because every user can read a command line. Says what to enter at 100ms for the webhooks, from
    which minutes are counted.

    In a container of docker-compose.yml it does not ask for REDIS_URL, because compose brings Redis, and prints what to
    write if the folder is not yours to write to.
    """
    if click.get_current_context().find_root().params.get("env_file"):
        raise click.UsageError(f"`gateway init` writes {_ENV} into this folder; leave out --env-file")
    url = urlsplit(given["REDIS_URL"] or "")
    if url.password or "password=" in url.query:
        raise CommandError(
            "--redis-url: other users can read a password on a command line; set REDIS_URL, or enter it when asked"
        )
    env = process_env() | {name: value for name, value in given.items() if value}
    if signing_key:
        _check_signing(env)
    prints = not _is_writable()
    if prints and not in_compose(env):
        raise CommandError(f"{_ENV} cannot be written: no file can be made in this folder")
    if sys.stdin.isatty() and not prints and not force:
        _confirm([Path(_ENV)])  # before the questions: a no afterwards would lose the answers
    answers = complete(env, offline=offline, needs_public_url=signing_key, fits=_policy_for)
    settings = Settings.from_env(answers.env)
    plan = _plan(answers, settings)
    plan = replace(plan, notes=(*plan.notes, _webhooks(settings)))
    if signing_key or _wants_keys(settings):
        plan = _with_keys(plan, settings)
    if prints:
        _print(plan)
        return
    written = _write(plan, force=force)
    if as_json:
        print_json({**written, "notes": plan.notes})
    else:
        _say(plan, written)


def _wants_keys(settings: Settings) -> bool:
    if not settings.public_url or settings.token_keys is not None or not sys.stdin.isatty():
        return False
    if in_compose(process_env()):  # the user of the container could not read the file
        return False
    text = f"Should other services be able to verify access tokens? They are then signed with keys in {_KEYS}"
    return click.confirm(text, default=False, err=True)


def _check_signing(env: Mapping[str, str]) -> None:
    if not env.get("GATEWAY_PUBLIC_URL") and not sys.stdin.isatty():
        raise CommandError(
            "--signing-key needs --public-url, which names the issuer of the tokens; nothing was written"
        )
    if env.get("GATEWAY_SIGNING_KEY"):
        raise CommandError("--signing-key: GATEWAY_SIGNING_KEY is set already; nothing was written")


def _with_keys(plan: _Plan, settings: Settings) -> _Plan:
    # Only here: cryptography takes as long to import as the rest.
    from auth.signing_keys import KINDS, make_key, write_keys

    now = datetime.now(UTC).replace(microsecond=0)
    keys = write_keys([make_key(KINDS[0], now), make_key(KINDS[0], now)])
    note = f"Other services find the public keys at {settings.public_url}/.well-known/jwks.json."
    return replace(plan, keys=keys, env={**plan.env, "GATEWAY_SIGNING_KEY": f"./{_KEYS}"}, notes=(*plan.notes, note))


def _webhooks(settings: Settings) -> str:
    """Say how 100ms sends its events, without the secret."""
    address = f"{settings.public_url or 'https://ADDRESS-OF-THE-GATEWAY'}{PATH}"
    where = "Webhooks, from which minutes are counted: enter in the 100ms dashboard (Developer) the URL"
    return f"{where} {address} and a header {settings.webhook_header} with the value of HMS_WEBHOOK_SECRET in {_ENV}."


def _plan(answers: Answers, settings: Settings) -> _Plan:
    env, template, file = dict(answers.env), answers.template, _POLICY
    if in_compose(process_env()):
        file = _COMPOSE_POLICY
        if env["REDIS_URL"] == COMPOSE_REDIS:  # with any value, compose would start no Redis
            del env["REDIS_URL"]
    notes = tuple(
        f"{name} was not checked. Run `gateway doctor` when Redis can be reached." for name in answers.unchecked
    )
    if template is None:
        return _Plan(env, notes=(*notes, "100ms was not asked. Run `gateway doctor` when it can be reached."))
    policy = policy_of(settings)
    text = _policy_for(answers.env, template)
    if not text:
        return _Plan(env, notes=(*notes, *_powers(policy, template)))
    missing = missing_roles(policy, "default", template.role_names)
    written = parse_policy(text, file)
    has = ", ".join(sorted(template.role_names))
    note = f"The template has no {' and no '.join(missing)} but {has}: {file} maps relations to these roles."
    notes = (*notes, note, *_left_out(template), *_powers(written, template))
    return _Plan({**env, "GATEWAY_POLICY": f"./{file}"}, text, file, notes=notes)


def _policy_for(env: Mapping[str, str], template: HmsTemplate) -> str:
    """Return a policy for a template whose roles the built-in one does not fit, else an empty text.

    Raises: Wrong, PolicyError
    """
    policy = policy_of(Settings.from_env(env))
    missing = missing_roles(policy, "default", template.role_names)
    if not missing:
        return ""
    if policy.source != BUILT_IN:
        raise Wrong(
            f"{policy.source} lists roles that the template does not have: {', '.join(missing)};"
            f" it has {', '.join(sorted(template.role_names)) or 'none'}."
            " Correct it, or leave GATEWAY_POLICY unset"
        )
    try:
        return policy_text(recommended_mapping(template))
    except NoMapping as error:
        raise Wrong(str(error)) from error


def _left_out(template: HmsTemplate) -> tuple[str, ...]:
    names = ", ".join(map(repr, unusable_names(template)))
    return (f"Left out: {names}. A join token can hold only names of {NAMES_ALLOWED}.",) if names else ()


def _powers(policy: Policy, template: HmsTemplate) -> tuple[str, ...]:
    found = {role.name: role for _, role in privileged_mints(policy, "default", template)}
    return tuple(
        f"Warning: every participant may join as {role.name!r}, which has powers: {' '.join(role.privileged_by)}."
        for role in found.values()
    )


def _confirm(paths: Sequence[Path]) -> None:
    """Ask whether files may be replaced. Raises: CommandError, click.Abort"""
    present = " and ".join(str(path) for path in paths if path.exists())
    if not present:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{present} exists already; --force replaces it and keeps a backup")
    click.confirm(f"{present} exists already. Replace it? A backup is kept", abort=True, err=True)


def _write(plan: _Plan, *, force: bool) -> dict[str, str | None]:
    """Write the files; return their paths and the paths of the backups."""
    files = plan.files()
    if not force:
        _confirm([path for path, *_ in files if not (sys.stdin.isatty() and path == Path(_ENV))])
    written: dict[str, str | None] = {}
    for path, text, mode in files:
        name = path.name.lstrip(".").partition(".")[0]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            written[f"{name}_backup"] = _back_up(path)
            write_whole(path, text, mode=mode)
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}") from error
        written[name] = str(path)
    return written


def _back_up(path: Path) -> str | None:
    if not path.exists():
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    backup = path.with_name(f"{path.name}.{stamp}.bak")
    write_whole(backup, path.read_bytes())
    return str(backup)


def _env_text(env: Mapping[str, str]) -> str:
    lines = "".join(f"{name}={quoted(name, value)}\n" for name, value in sorted(env.items()))
    return f"# Written by `gateway init`. Contains secrets: do not share it or put it under version control.\n{lines}"


def _is_writable() -> bool:
    try:
        with tempfile.TemporaryFile(dir="."):
            return True
    except OSError:
        return False


def _print(plan: _Plan) -> None:
    """Print the files of an installation, for people to write them."""
    for path, text, mode in plan.files():
        say(f"Write this to {path} beside docker-compose.yml, with mode {mode:04o}:\n\n{text}")
    for note in plan.notes:
        say(note)
    say("Next: docker compose up -d --wait")


def _say(plan: _Plan, written: Mapping[str, str | None]) -> None:
    for name in ("signing", "policy", "env"):
        if name in written:
            backup = written[f"{name}_backup"]
            say(f"Wrote {written[name]}" + (f"; the previous file is {backup}" if backup else "") + ".")
    for note in plan.notes:
        say(note)
    for name in sorted(name for name, value in plan.env.items() if process_env().get(name, value).strip() != value):
        say(f"Warning: {name} of the environment overrides the one in .env.")
    if in_compose(process_env()):
        say("Next: docker compose up -d --wait; docker compose exec gateway gateway users add NAME --role admin")
    else:
        say("Next: gateway doctor; gateway users add NAME --role admin; gateway serve")
