"""`gateway init` writes settings with which `serve` starts and `doctor` passes."""

from __future__ import annotations

import os
import pty
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values

from tests import forked
from tests.e2e.commands import assert_done, assert_failed, parsed
from tests.e2e.policies import BUILT_IN
from tests.e2e.templates import create_template, role
from tests.servers import NO_TLS, Installation, Service, free_port

ASKED = ("REDIS_URL", "HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "HMS_TEMPLATE_ID")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Valkey and the local 100ms."""
    with Installation(tmp_path_factory.mktemp("init")).servers() as running:
        yield running


@pytest.fixture
def fresh(servers: Installation, tmp_path: Path) -> Installation:
    """An empty folder with these servers; its environment has everything except GATEWAY_SECRET."""
    fresh = Installation(tmp_path, valkey=servers.valkey)
    fresh.emulator_url = servers.emulator_url
    fresh.env = {name: value for name, value in servers.env.items() if name != "GATEWAY_SECRET"}
    return fresh


def written(at: Installation) -> dict[str, str | None]:
    return dotenv_values(at.folder / ".env", interpolate=False)


def bare(at: Installation) -> Installation:
    """The same folder, for a user without settings in the environment."""
    at.env = {name: at.env[name] for name in ("PATH", "PYTHONPATH")}
    return at


def test_written_settings_start_the_gateway_and_pass_the_doctor(fresh: Installation) -> None:
    said = assert_done(fresh.command("init"), fresh.env)
    assert "Wrote .env." in said
    assert "gateway doctor" in said
    path = fresh.folder / ".env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(fresh.folder) == [".env"]  # the roles are host and guest, so no policy is written
    settings = written(fresh)
    assert {name: settings[name] for name in (*ASKED, "HMS_API_URL")} == {
        name: fresh.env[name] for name in (*ASKED, "HMS_API_URL")
    }
    assert len(settings["HMS_WEBHOOK_SECRET"] or "") == 64
    assert settings["HMS_WEBHOOK_SECRET"] not in said.split()
    assert "https://ADDRESS-OF-THE-GATEWAY/hooks/100ms and a header X-Gateway-Webhook-Secret" in said
    secret = settings["GATEWAY_SECRET"]
    assert secret is not None
    assert len(secret) == 64
    assert secret not in said
    bare(fresh)
    assert_done(fresh.command("doctor"), {"GATEWAY_SECRET": secret})
    serves(fresh)


def test_a_file_of_settings_elsewhere_is_refused(fresh: Installation) -> None:
    (fresh.folder / "settings").touch()
    done = fresh.command("--env-file", "settings", "init")
    assert (done.returncode, done.stdout) == (2, "")
    assert "writes .env into this folder; leave out --env-file" in done.stderr
    assert os.listdir(fresh.folder) == ["settings"]


def serves(at: Installation) -> None:
    port = free_port()
    arguments = ["serve", "--port", str(port)]
    service = Service(arguments, folder=at.folder, env=at.env, log=at.folder / "serve.log", real=True)
    service.start()
    try:

        def ready() -> bool:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/health/ready", verify=NO_TLS, trust_env=False)
            except httpx.HTTPError:
                return False
            return answer.status_code == 200

        service.wait_until(ready, "the gateway is ready")
        time.sleep(0.5)
        assert "the policy names roles" not in service.output()
    finally:
        service.stop()


def test_a_template_with_other_roles_gets_a_policy_that_the_doctor_passes(fresh: Installation) -> None:
    fresh.env["HMS_TEMPLATE_ID"] = create_template(
        fresh,
        broadcaster=role("endRoom", "removeOthers", publishes=("audio", "video")),
        stage=role(publishes=("audio",)),
        viewer=role(),
    )
    plain = parsed(fresh.command("init", "--json"), fresh.env)
    assert (plain["env"], plain["policy"], plain["env_backup"]) == (".env", "policy.toml", None)
    assert "broadcaster, stage, viewer" in plain["notes"][0]
    assert written(fresh)["GATEWAY_POLICY"] == "./policy.toml"
    assert stat.S_IMODE((fresh.folder / "policy.toml").stat().st_mode) == 0o644  # a container runs as another user
    bare(fresh)
    policy = parsed(fresh.command("policy", "check", "--json"), fresh.env)
    default = policy["templates"]["default"]
    assert default["owner"] == default["cohost"] == ["viewer", "stage", "broadcaster"]
    assert default["participant"] == default["viewer"] == ["viewer"]
    findings = parsed(fresh.command("doctor", "--json"), fresh.env)["checks"]
    assert {one["status"] for one in findings if one["check"].startswith("template")} == {"ok"}
    serves(fresh)


def test_a_template_in_which_every_role_has_powers_is_mapped_with_a_warning(fresh: Installation) -> None:
    """At 100ms, recording and streaming are enabled in every role by default."""
    unset = {"publishParams": {"allowed": []}}
    broadcaster = role("endRoom", "removeOthers", publishes=("audio", "video"))
    fresh.env["HMS_TEMPLATE_ID"] = create_template(fresh, **{"viewer-realtime": unset, "broadcaster": broadcaster})
    said = assert_done(fresh.command("init"), fresh.env)
    assert "Wrote policy.toml." in said
    powers = "browserRecording rtmpStreaming hlsStreaming"
    assert f"Warning: every participant may join as 'viewer-realtime', which has powers: {powers}." in said
    bare(fresh)
    default = parsed(fresh.command("policy", "check", "--json"), fresh.env)["templates"]["default"]
    assert default["owner"] == default["cohost"] == ["viewer-realtime", "broadcaster"]
    assert default["participant"] == default["viewer"] == ["viewer-realtime"]
    findings = parsed(fresh.command("doctor", "--json"), fresh.env)["checks"]
    assert [one["status"] for one in findings if one["check"] == "template default"] == ["ok", "WARN"]


def test_roles_with_unusable_names_are_reported_with_the_reason(fresh: Installation) -> None:
    fresh.env["HMS_TEMPLATE_ID"] = create_template(fresh, élève=role(), prof=role("endRoom"))
    notes = parsed(fresh.command("init", "--json"), fresh.env)["notes"]
    allowed = "plain ASCII without ? > ~, at most 64 characters"
    assert f"Left out: 'élève'. A join token can hold only names of {allowed}." in notes
    assert "Warning: every participant may join as 'prof', which has powers: endRoom." in notes
    fresh.env["HMS_TEMPLATE_ID"] = create_template(fresh, élève=role())
    refused = fresh.command("init", "--force")
    assert_failed(refused, fresh.env, "no role with a name", "plain ASCII", "it has 'élève'", "nothing was written")


def test_a_guest_role_with_powers_gets_a_warning(fresh: Installation) -> None:
    fresh.env["HMS_TEMPLATE_ID"] = create_template(fresh, host=role("endRoom"), guest=role("changeRole"))
    assert "Warning: every participant may join as 'guest'" in assert_done(fresh.command("init"), fresh.env)


def test_an_existing_policy_is_kept_if_it_fits_and_refused_otherwise(fresh: Installation) -> None:
    (fresh.folder / "mine.toml").write_text(BUILT_IN.read_text())
    fresh.env["GATEWAY_POLICY"] = "mine.toml"
    assert_done(fresh.command("init"), fresh.env)
    assert written(fresh)["GATEWAY_POLICY"] == "mine.toml"
    fresh.env["HMS_TEMPLATE_ID"] = create_template(fresh, pupil=role())
    assert_failed(fresh.command("init", "--force"), fresh.env, "mine.toml", "guest, host", "pupil")


def test_existing_files_are_never_replaced_silently(fresh: Installation) -> None:
    path = fresh.folder / ".env"
    path.write_text("MINE=1\n")
    assert_failed(fresh.command("init"), fresh.env, ".env exists already", "--force")
    assert path.read_text() == "MINE=1\n"
    plain = parsed(fresh.command("init", "--force", "--json"), fresh.env)
    backup = fresh.folder / plain["env_backup"]
    assert backup.read_text() == "MINE=1\n"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    first = written(fresh)["GATEWAY_SECRET"]
    assert_done(fresh.command("init", "--force"), fresh.env)
    assert written(fresh)["GATEWAY_SECRET"] != first
    assert len(list(fresh.folder.glob(".env.*.bak"))) == 2


@pytest.mark.parametrize("missing", ASKED)
def test_without_a_terminal_a_missing_setting_is_named(fresh: Installation, missing: str) -> None:
    fresh.env[missing] = ""
    assert_failed(fresh.command("init"), fresh.env, f"{missing} is not set", "without a terminal")
    assert os.listdir(fresh.folder) == []


def test_options_replace_settings_but_not_secrets(fresh: Installation) -> None:
    given = {name: fresh.env.pop(name) for name in ("REDIS_URL", "HMS_TEMPLATE_ID", "HMS_API_URL")}
    words = ("--redis-url", given["REDIS_URL"], "--template-id", given["HMS_TEMPLATE_ID"])
    assert_done(fresh.command("init", *words, "--api-url", given["HMS_API_URL"]), fresh.env)
    assert written(fresh)["HMS_API_URL"] == given["HMS_API_URL"]
    refused = fresh.command("init", "--force", "--redis-url", "redis://:pass-word@127.0.0.1/0")
    assert "pass-word" not in assert_failed(refused, fresh.env, "--redis-url")
    for option in ("--app-secret", "--access-key", "--secret"):
        assert fresh.command("init", option, "x").returncode == 2


def test_the_webhook_to_enter_at_100ms_is_printed_without_its_secret(fresh: Installation) -> None:
    secret = fresh.env["HMS_WEBHOOK_SECRET"] = "k3pt-as-it-was-0123456789-abcdefgh"
    said = assert_done(fresh.command("init", "--public-url", "https://video.example.com/"), fresh.env)
    assert "https://video.example.com/hooks/100ms and a header X-Gateway-Webhook-Secret" in said
    assert "HMS_WEBHOOK_SECRET in .env" in said
    assert secret not in said
    assert written(fresh)["HMS_WEBHOOK_SECRET"] == secret
    assert written(fresh)["GATEWAY_PUBLIC_URL"] == "https://video.example.com/"


def test_signing_keys_are_written_with_the_setting_that_names_them(fresh: Installation) -> None:
    assert_failed(fresh.command("init", "--signing-key"), fresh.env, "--signing-key needs --public-url")
    assert os.listdir(fresh.folder) == []
    url = "https://video.example.com"
    said = assert_done(fresh.command("init", "--signing-key", "--public-url", url), fresh.env)
    assert "Wrote signing.pem." in said
    assert f"{url}/.well-known/jwks.json" in said
    path = fresh.folder / "signing.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "PRIVATE" not in said
    assert written(fresh)["GATEWAY_SIGNING_KEY"] == "./signing.pem"
    found = {one["check"]: one for one in parsed(bare(fresh).command("doctor", "--json"), {})["checks"]}
    assert found["signing"]["text"].startswith("ES256, key ")
    assert found["signing"]["status"] == "ok"
    path.chmod(0o644)
    again = {one["check"]: one for one in parsed(fresh.command("doctor", "--json"), {})["checks"]}
    assert again["key file"]["status"] == "WARN"
    refused = fresh.command("init", "--force", "--offline", "--signing-key", GATEWAY_SIGNING_KEY="signing.pem",
                            GATEWAY_PUBLIC_URL=url, REDIS_URL="redis://127.0.0.1", HMS_APP_ACCESS_KEY="a" * 24,
                            HMS_APP_SECRET="k3pt-as-it-was-0123456789-abcdefgh", HMS_TEMPLATE_ID="0" * 24)  # fmt: skip
    assert_failed(refused, fresh.env, "GATEWAY_SIGNING_KEY is set already")


def test_values_that_100ms_refuses_are_not_written_unless_offline(fresh: Installation) -> None:
    wrong = {"HMS_APP_SECRET": "n0t-the-secret-of-this-account-at-100ms!"}
    assert_failed(fresh.command("init", **wrong), fresh.env | wrong, "100ms refuses", "nothing was written")
    assert_failed(fresh.command("init", HMS_TEMPLATE_ID="9" * 24), fresh.env, "no template", "nothing was written")
    away = {"HMS_API_URL": "http://127.0.0.1:9/v2"}
    assert_failed(fresh.command("init", **away), fresh.env, "cannot be reached", "--offline")
    assert_failed(fresh.command("init", "--offline", HMS_APP_SECRET="short"), fresh.env, "HMS_APP_SECRET")
    assert os.listdir(fresh.folder) == []
    assert "gateway doctor" in assert_done(fresh.command("init", "--offline", **away), fresh.env)
    assert (fresh.folder / ".env").exists()


@pytest.mark.parametrize("password", ["p#a ss", "a$b{c}", 'quo"te', "%20;&"])
def test_passwords_with_special_characters_survive_the_file(fresh: Installation, password: str) -> None:
    url = f"redis://:{password}@127.0.0.1:6379/0".replace("#", "%23")
    assert_done(fresh.command("init", "--offline", REDIS_URL=url), fresh.env)
    assert written(fresh)["REDIS_URL"] == url


def test_values_that_the_file_cannot_contain_are_refused(fresh: Installation) -> None:
    done = fresh.command("init", "--offline", HMS_APP_SECRET="a'b\\c" + fresh.env["HMS_APP_SECRET"])
    assert_failed(done, fresh.env, "HMS_APP_SECRET", "cannot be written to .env")
    assert os.listdir(fresh.folder) == []


def test_a_terminal_gets_prompts_and_the_secret_is_not_shown(fresh: Installation) -> None:
    given = {name: fresh.env.pop(name) for name in ASKED}
    url, key, secret, template = given.values()
    other = "x" + secret[1:]
    # Each wrong answer is asked for again: at once if its form is wrong, or when 100ms refuses it.
    answers = ["localhost", url, "a b", key, "short", other, key, secret, "my template", "0" * 24, template]
    shown = at_terminal(fresh, "init", answers=[*answers, "video.example.com", "https://video.example.com", "n"])
    assert "REDIS_URL must look like redis://host:6379/0" in shown
    assert "HMS_APP_ACCESS_KEY must be one word of ASCII, as the 100ms dashboard shows it." in shown
    assert "HMS_APP_SECRET must have at least 32 bytes." in shown
    assert "HMS_TEMPLATE_ID must be 24 hexadecimal digits" in shown
    assert "100ms refuses HMS_APP_ACCESS_KEY and HMS_APP_SECRET." in shown
    assert f"100ms has no template {'0' * 24} (HMS_TEMPLATE_ID)." in shown
    assert other not in shown
    assert "Should other services be able to verify access tokens?" in shown
    assert not (fresh.folder / "signing.pem").exists()
    for name in ASKED:
        assert name in shown
    assert given["REDIS_URL"] in shown  # a terminal echoes the input,
    assert given["HMS_APP_SECRET"] not in shown  # except the secret
    assert {name: written(fresh)[name] for name in ASKED} == given
    assert written(fresh)["GATEWAY_PUBLIC_URL"] == "https://video.example.com"
    shown = at_terminal(fresh, "init", answers=["n"])  # before the questions
    assert ".env exists already. Replace it?" in shown
    assert list(fresh.folder.glob(".env.*.bak")) == []
    at_terminal(fresh, "init", answers=["y", *(given[name] for name in ASKED), ""])
    assert "GATEWAY_PUBLIC_URL" not in written(fresh)
    assert len(list(fresh.folder.glob(".env.*.bak"))) == 1


def test_a_server_that_does_not_answer_is_tried_again_replaced_or_left_unchecked(fresh: Installation) -> None:
    given = {name: fresh.env.pop(name) for name in ASKED}
    url, key, secret, template = given.values()
    dead, wrong = f"redis://127.0.0.1:{free_port()}/0", f"{url.rpartition('/')[0]}/99"
    api = f"http://127.0.0.1:{free_port()}/v2"
    fresh.env["HMS_API_URL"] = api
    shown = at_terminal(fresh, "init", answers=[dead, "t", "e", wrong, "e", url, key, secret, "t", "g", template, ""])
    unreachable = f"REDIS_URL: connecting to Redis at {dead[8:-2]} failed: connection refused"
    assert shown.count(unreachable) == 2
    assert "DB index is out of range" in shown
    assert shown.count(f"100ms cannot be reached. ({api})") == 2
    assert shown.index("100ms cannot be reached") < shown.index("HMS_TEMPLATE_ID (100ms dashboard")
    assert "HMS_APP_ACCESS_KEY and HMS_APP_SECRET will be written unchecked." in shown
    assert "100ms was not asked. Run `gateway doctor` when it can be reached." in shown
    assert {name: written(fresh)[name] for name in ASKED} == given
    (fresh.folder / ".env").unlink()
    fresh.env["REDIS_URL"] = dead  # of the environment, which is no reason to fail at a terminal
    shown = at_terminal(
        fresh, "init", "--public-url", "https://a.example", answers=["g", key, secret, "g", template, "n"]
    )
    assert "REDIS_URL was not checked. Run `gateway doctor` when Redis can be reached." in shown
    assert written(fresh)["REDIS_URL"] == dead


def test_a_redis_that_would_lose_accounts_is_named_at_once(fresh: Installation) -> None:
    url = fresh.env.pop("REDIS_URL")
    with fresh.valkey.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            shown = at_terminal(fresh, "init", answers=[url, "g", ""])
            assert "REDIS_URL: eviction: allkeys-lru lets Redis delete accounts" in shown
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_a_template_that_cannot_be_used_is_asked_for_again(fresh: Installation) -> None:
    unusable = create_template(fresh, élève=role())
    template = fresh.env.pop("HMS_TEMPLATE_ID")
    shown = at_terminal(fresh, "init", answers=[unusable, template, ""])
    assert "no role with a name" in shown
    assert written(fresh)["HMS_TEMPLATE_ID"] == template


def test_what_would_fail_later_is_named_before_the_first_question(fresh: Installation) -> None:
    for name in ASKED:
        del fresh.env[name]
    (fresh.folder / "mine.toml").write_text("nonsense = 1")
    for wrong, said in (
        ({"HMS_WEBHOOK_SECRET": "short"}, "HMS_WEBHOOK_SECRET must have at least 32 bytes"),
        ({"GATEWAY_PUBLIC_URL": "a.example"}, "GATEWAY_PUBLIC_URL must be an https:// address"),
        ({"GATEWAY_POLICY": "mine.toml"}, "mine.toml: nonsense: unknown key"),
    ):
        assert_failed(fresh.command("init", **wrong), fresh.env, said)
    refused = forked.run(["init"], folder=Path("/proc"), env=fresh.env)
    assert ".env cannot be written" in refused.stderr


def test_in_a_container_of_compose_redis_is_neither_asked_for_nor_written(fresh: Installation) -> None:
    """With a REDIS_URL in `.env`, compose would start no Redis; and it mounts the policy's folder, not its file."""
    fresh.env |= {"DEMO_COMPOSE": "on", "REDIS_URL": "redis://redis:6379/0"}
    fresh.env["HMS_TEMPLATE_ID"] = create_template(fresh, stage=role(publishes=("audio",)))
    said = assert_done(fresh.command("init"), fresh.env)
    assert "docker compose up -d --wait" in said
    assert "REDIS_URL" not in written(fresh)
    assert written(fresh)["GATEWAY_POLICY"] == "./deploy/policy/policy.toml"
    assert "stage" in (fresh.folder / "deploy" / "policy" / "policy.toml").read_text()
    before = (fresh.folder / ".env").read_text()

    printed = forked.run(["init"], folder=Path("/proc"), env=fresh.env)  # a folder in which no file can be made
    assert printed.returncode == 0, printed.stderr
    assert "Write this to .env beside docker-compose.yml, with mode 0600:" in printed.stdout
    for name, value in written(fresh).items():
        secret = name in ("GATEWAY_SECRET", "HMS_WEBHOOK_SECRET")  # new ones each time
        assert f"\n{name}={'' if secret else value}" in printed.stdout
    assert (fresh.folder / ".env").read_text() == before


def at_terminal(at: Installation, *arguments: str, answers: list[str]) -> str:
    """Run a command in its own terminal; type an answer at each prompt; return everything that is shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=at.folder,
        env=at.env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, left, until = "", list(answers), time.monotonic() + 30
    try:
        while time.monotonic() < until:
            if not select.select([ours], [], [], 0.1)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                shown += os.read(ours, 4096).decode()
            except OSError:  # Linux reports that the other end is closed this way
                break
            if left and shown.endswith(": "):  # the space comes after the echo is off
                os.write(ours, f"{left.pop(0)}\n".encode())
                shown += "\n"
        process.wait(10)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert left == [], shown
    return shown
