"""Settings: every refusal names its variable in one line without a secret."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

import pytest

from auth.signing_keys import make_key, write_keys
from gateway import settings as module
from gateway.setting_values import SettingsError
from gateway.settings import (
    DEMO_ENV,
    Settings,
    argon2_cost,
    hms_given,
    load_env,
    password_policy,
    redis_url,
    signing_key_path,
    use_env_file,
)

HMS, GATEWAY, OLDER = "hms-Aq3v9Zk1mTr7Yw0Lc5Xb", "gat-Pz8s2Df4hJ6kLq1Vn3Gt9", "old-Wx5e7Ru9iOp2Mb4Cf6Kd8"
HMS, GATEWAY, OLDER = HMS + "Nd8uFg2Jh4", GATEWAY + "Yb0sRe6Wc", OLDER + "Tz1aSv3Hn"
GOOD = {
    "REDIS_URL": "redis://:redis-pass-word@127.0.0.1:6379/0",
    "HMS_APP_ACCESS_KEY": "63f0a5b1c2d3e4f5a6b7c8d9",
    "HMS_APP_SECRET": HMS,
    "HMS_TEMPLATE_ID": "0123456789abcdef01234567",
    "GATEWAY_SECRET": GATEWAY,
}
HOOK = "hook-Rt6wQe8Ui2Op4As1Df3Gh5Jk7Lz9Xc"
HIDDEN = {"REDIS_URL", "HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "GATEWAY_SECRET"}


def refusal(**changes: str) -> str:
    """Return the text of a refusal, after checking what applies to all refusals."""
    env = GOOD | changes
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(env)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    for name in HIDDEN:
        for part in env[name].split(","):
            assert len(part.strip()) < 9 or part.strip() not in text, f"the value of {name} is in: {text}"
    return text


def test_the_required_settings_are_sufficient() -> None:
    settings = Settings.from_env(GOOD)
    assert settings.redis_url == GOOD["REDIS_URL"]
    assert settings.gateway_secrets == (GATEWAY,)
    assert settings.hms_api_url == "https://api.100ms.live/v2"
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert (settings.cors_origins, settings.log_format, settings.policy_path) == ((), "json", None)


def test_repr_shows_no_secret() -> None:
    shown = repr(Settings.from_env(GOOD | {"GATEWAY_SECRET": f"{GATEWAY},{OLDER}"}))
    for secret in (HMS, GATEWAY, OLDER, "redis-pass-word", GOOD["HMS_APP_ACCESS_KEY"]):
        assert secret not in shown


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", ["", None])
def test_a_missing_setting_is_named(name: str, value: str | None) -> None:
    env = {key: text for key, text in GOOD.items() if key != name or value is not None}
    with pytest.raises(SettingsError, match=f"^{name} ") as caught:
        Settings.from_env(env | ({name: value} if value is not None else {}))
    assert "\n" not in str(caught.value)


def test_several_missing_settings_are_all_named_at_once() -> None:
    env = {name: value for name, value in GOOD.items() if name != "REDIS_URL"} | {"GATEWAY_SECRET": " "}
    with pytest.raises(SettingsError, match=r"^REDIS_URL and GATEWAY_SECRET are not set; `gateway init`"):
        Settings.from_env(env)


@pytest.mark.parametrize("name", [name for name in GOOD if name != "REDIS_URL"])
def test_a_setting_of_only_white_space_is_missing(name: str) -> None:
    assert refusal(**{name: "  \t"}) == f"{name} is not set"


PLACEHOLDERS = [
    "your_app_secret_from_the_dashboard",
    "your-secret-here-0123456789abcdef",
    "change-me-0123456789abcdefghijklmn",
    "CHANGE_ME_0123456789abcdefghijklmn",
    "changeme0123456789abcdefghijklmnop",
    "a-placeholder-0123456789abcdefghij",
    "example-0123456789abcdefghijklmnop",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "<the secret of your 100ms app here>",
    "0123456789-abcdefghijkl-app-secret",
    "my-0123456789-abcdefghijklmnopqrst",
    "my_secret_for_100ms_0123456789abcd",
    "My_Secret_For_100ms_0123456789abcd",
    "MY_SECRET_FOR_100MS_0123456789ABCD",
]


@pytest.mark.parametrize("name", ["HMS_APP_SECRET", "GATEWAY_SECRET", "HMS_APP_ACCESS_KEY"])
@pytest.mark.parametrize("value", PLACEHOLDERS)
def test_a_placeholder_is_refused_by_name(name: str, value: str) -> None:
    assert refusal(**{name: value}) == f"{name} still holds a placeholder"


@pytest.mark.parametrize("name", ["HMS_APP_SECRET", "GATEWAY_SECRET"])
def test_a_secret_must_have_at_least_32_bytes(name: str) -> None:
    value = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6"
    assert len(value) == 32
    assert Settings.from_env(GOOD | {name: value})
    assert refusal(**{name: value[:31]}) == f"{name} must have at least 32 bytes"


def test_the_length_of_a_secret_is_counted_in_bytes() -> None:
    assert Settings.from_env(GOOD | {"GATEWAY_SECRET": "äöüßéèêëíìîïóòôú"}).gateway_secrets == ("äöüßéèêëíìîïóòôú",)


@pytest.mark.parametrize("name", ["HMS_APP_SECRET", "GATEWAY_SECRET"])
@pytest.mark.parametrize("value", ["a" * 64, "abcdefghi" * 8])
def test_a_secret_of_few_different_characters_is_not_random(name: str, value: str) -> None:
    assert refusal(**{name: value}).startswith(f"{name} is not random")


@pytest.mark.parametrize("name", ["HMS_APP_SECRET", "GATEWAY_SECRET"])
@pytest.mark.parametrize(
    "value",
    [
        "0123456789abcdef" * 2,
        "kT4-pQ9_xW2mZ7vL" * 2,
        "kT4-pQ9_xW2mZ7vL" * 2 + "kT4-pQ",
        "kT4-pQ9_xW2mZ7vLkt4-Pq9_Xw2Mz7Vl",
        "abcdefghijklmnopqrstuvwxyz012345",
        "zyxwvutsrqponmlkjihgfedcba987654",
        "qwertyuiopasdfghjklzxcvbnm123456",
        "aabbccddeeffgghhiijjkkllmmnnoopp",
    ],
)
def test_a_secret_that_repeats_or_follows_a_sequence_is_not_random(name: str, value: str) -> None:
    assert refusal(**{name: value}) == f"{name} is not random: it repeats a shorter text or follows a sequence"


def test_no_random_secret_is_refused() -> None:
    for _ in range(2000):
        for value in (secrets.token_hex(16), secrets.token_urlsafe(32)):
            if len(set(value)) >= 10 and not value.startswith("my"):
                Settings.from_env(GOOD | {"GATEWAY_SECRET": value})


def test_the_gateways_secret_must_not_be_the_100ms_secret() -> None:
    for value in (HMS, f"{GATEWAY},{HMS}", f"{HMS} , {GATEWAY}"):
        assert refusal(GATEWAY_SECRET=value).startswith("GATEWAY_SECRET must differ from HMS_APP_SECRET")


def test_a_list_of_secrets_keeps_its_order() -> None:
    settings = Settings.from_env(GOOD | {"GATEWAY_SECRET": f" {GATEWAY} , {OLDER} "})
    assert settings.gateway_secrets == (GATEWAY, OLDER)


@pytest.mark.parametrize("value", [f"{GATEWAY},", f",{GATEWAY}", f"{GATEWAY},,{OLDER}", f"{GATEWAY}, ", ","])
def test_an_empty_element_in_the_list_of_secrets_is_refused(value: str) -> None:
    assert refusal(GATEWAY_SECRET=value).startswith("GATEWAY_SECRET ")


@pytest.mark.parametrize("weak", ["short", "a" * 40, "0123456789abcdef" * 2, "change-me-0123456789abcdefghijklmn"])
def test_every_secret_of_the_list_is_checked(weak: str) -> None:
    assert refusal(GATEWAY_SECRET=f"{GATEWAY},{weak}").startswith("GATEWAY_SECRET ")


def test_without_a_webhook_secret_there_are_none() -> None:
    settings = Settings.from_env(GOOD)
    assert (settings.webhook_secrets, settings.webhook_header) == ((), "X-Gateway-Webhook-Secret")


def test_webhook_secrets_are_a_list_that_repr_does_not_show() -> None:
    settings = Settings.from_env(GOOD | {"HMS_WEBHOOK_SECRET": f"{HOOK} , {OLDER}", "HMS_WEBHOOK_HEADER": "X-Ours"})
    assert (settings.webhook_secrets, settings.webhook_header) == ((HOOK, OLDER), "X-Ours")
    assert HOOK not in repr(settings)


@pytest.mark.parametrize(
    "value",
    ["short", "a" * 40, "change-me-0123456789abcdefghijklmn", f"{HOOK},", f"{HOOK},short", f"{HOOK},{HOOK}", ","],
)
def test_every_webhook_secret_is_checked(value: str) -> None:
    assert refusal(HMS_WEBHOOK_SECRET=value).startswith("HMS_WEBHOOK_SECRET ")


@pytest.mark.parametrize("value", [HMS, GATEWAY, f"{HOOK},{GATEWAY}"])
def test_a_webhook_secret_must_not_be_another_secret(value: str) -> None:
    assert refusal(HMS_WEBHOOK_SECRET=value).startswith("HMS_WEBHOOK_SECRET must differ")


def test_without_a_metrics_token_there_is_none() -> None:
    assert Settings.from_env(GOOD).metrics_token == ""


def test_a_metrics_token_is_not_shown() -> None:
    settings = Settings.from_env(GOOD | {"GATEWAY_METRICS_TOKEN": HOOK})
    assert settings.metrics_token == HOOK
    assert HOOK not in repr(settings)


@pytest.mark.parametrize("value", ["short", "a" * 40, "change-me-0123456789abcdefghijklmn"])
def test_a_metrics_token_is_checked_like_a_secret(value: str) -> None:
    assert refusal(GATEWAY_METRICS_TOKEN=value).startswith("GATEWAY_METRICS_TOKEN ")


@pytest.mark.parametrize("value", [HMS, GATEWAY, OLDER])
def test_a_metrics_token_must_not_be_another_secret(value: str) -> None:
    text = refusal(GATEWAY_METRICS_TOKEN=value, HMS_WEBHOOK_SECRET=OLDER)
    assert text.startswith("GATEWAY_METRICS_TOKEN must differ")


def test_secrets_of_outgoing_webhooks_are_checked_and_not_shown() -> None:
    secret = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    settings = Settings.from_env(GOOD | {"GATEWAY_WEBHOOK_SECRETS": f"billing=whsec_{secret}"})
    assert list(settings.signing_keys) == ["billing"]
    assert repr(settings.signing_keys["billing"][0])[2:12] not in repr(settings)
    text = refusal(GATEWAY_WEBHOOK_SECRETS=f"billing={secret}")
    assert text.startswith("GATEWAY_WEBHOOK_SECRETS: the secret of billing must be whsec_")
    assert secret not in text


@pytest.mark.parametrize("value", ["a b", "x:", "x\n", "é", "-x", "x" * 65, "Host", "content-length", "Content-Type"])
def test_the_webhook_header_must_be_one_of_its_own(value: str) -> None:
    assert refusal(HMS_WEBHOOK_HEADER=value).startswith("HMS_WEBHOOK_HEADER must be the name of a header")


def test_the_same_secret_twice_is_refused() -> None:
    assert refusal(GATEWAY_SECRET=f"{GATEWAY},{OLDER},{GATEWAY}") == "GATEWAY_SECRET lists the same secret twice"


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        "0123456789ABCDEF01234567",
        "0123456789abcdef0123456",
        "0123456789abcdef012345678",
        "../0123456789abcdef0123",
    ],
)
def test_a_template_id_is_24_hexadecimal_digits(value: str) -> None:
    assert refusal(HMS_TEMPLATE_ID=value).startswith("HMS_TEMPLATE_ID ")


@pytest.mark.parametrize(
    "value",
    ["redis://h", "redis://h:6379/3", "rediss://u:p@h.example:6380", "unix:///run/redis.sock", "redis://[::1]:6379"],
)
def test_the_usual_redis_urls_are_accepted(value: str) -> None:
    assert redis_url({"REDIS_URL": value}) == value


@pytest.mark.parametrize(
    "value",
    [
        "localhost:6379",
        "http://:s3cr3t-word@h",
        "redis://",
        "redis://:s3cr3t-word@",
        "redis://:s3cr3t-word@h:99999",
        "redis://:s3cr3t-word@h:0",
        "redis://:s3cr3t-word@h:port",
        "redis://[::1",
        "://",
        "s3cr3t-word",
        "redis://:s3cr3t-word@h/abc",
        "redis://:s3cr3t-word@h/0?socket_timeout=abc",
        "redis://:s3cr3t-word@h/0#x",
        "unix://",
    ],
)
def test_any_other_redis_url_is_refused_without_its_password(value: str) -> None:
    text = refusal(REDIS_URL=value)
    assert text.startswith("REDIS_URL must look like")
    assert "s3cr3t-word" not in text


@pytest.mark.parametrize("query", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "ca=/tmp/ca.pem", "db=1"])
def test_no_query_of_the_redis_url_can_change_what_is_verified(query: str) -> None:
    text = refusal(REDIS_URL=f"rediss://:s3cr3t-word@h:6379/0?{query}")
    assert text.endswith("by the system's CAs, or else by REDIS_CA_FILE or REDIS_FINGERPRINT")
    assert "s3cr3t-word" not in text


@pytest.mark.parametrize("name", ["REDIS_CA_FILE", "REDIS_FINGERPRINT"])
@pytest.mark.parametrize("url", ["redis://h:6379/0", "unix:///run/redis.sock"])
def test_trust_in_a_certificate_needs_a_redis_with_tls(name: str, url: str) -> None:
    text = refusal(REDIS_URL=url, **{name: "ab" * 32})
    assert text == f"{name} needs a rediss:// REDIS_URL: with this one nothing is encrypted or verified"


@pytest.mark.parametrize("value", ["ab" * 31, "ab" * 33, "xy" * 32, "ab" * 32 + ",", "a:b" * 32, "SHA256:" + "ab" * 32])
def test_a_fingerprint_is_a_sha256(value: str) -> None:
    text = refusal(REDIS_URL="rediss://h", REDIS_FINGERPRINT=value)
    assert text.startswith("REDIS_FINGERPRINT must be the SHA-256 of a certificate: 64 hexadecimal digits")


@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA"])
def test_a_ca_file_has_certificates(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    unread = "it holds no certificate that can be read"
    said = {str(path): unread if content is not None else "there is no such file", str(tmp_path): "is a directory"}
    for value, why in (said | {"-----BEGIN CERTIFICATE-----\\nAAAA": unread}).items():
        text = refusal(REDIS_URL="rediss://h", REDIS_CA_FILE=value)
        assert text == f"REDIS_CA_FILE must be a PEM file of CA certificates: {why}"


@pytest.mark.parametrize(
    "value",
    [
        "https://api.100ms.live/v2",
        "http://127.0.0.1:8100/v2",
        "http://emulator:8100",
        "http://[::1]:1",
        "http://10.0.0.9",
    ],
)
def test_the_api_url_is_https_or_in_the_own_network(value: str) -> None:
    assert Settings.from_env(GOOD | {"HMS_API_URL": value + "/"}).hms_api_url == value


@pytest.mark.parametrize(
    "value",
    [
        "http://api.100ms.live/v2",
        "http://8.8.8.8",
        "ftp://api.100ms.live",
        "api.100ms.live",
        "https://",
        "https://u:s3cr3t-word@api.100ms.live",
        "https://api.100ms.live?key=s3cr3t-word",
        "https://api.100ms.live#s3cr3t-word",
        "https://api.100ms.live:99999",
        "https://[::1",
    ],
)
def test_any_other_api_url_is_refused_without_its_credentials(value: str) -> None:
    text = refusal(HMS_API_URL=value)
    assert text.startswith("HMS_API_URL ")
    assert "s3cr3t-word" not in text


@pytest.mark.parametrize(("name", "most"), [("GATEWAY_PORT", 65535), ("GATEWAY_WORKERS", 64)])
def test_a_number_outside_its_range_is_refused(name: str, most: int) -> None:
    for value in ("1", str(most)):
        assert Settings.from_env(GOOD | {name: value})
    for value in ("0", str(most + 1), "-1", "1.0", "1e2", "٣", " 1", "9" * 5000, "x", "0x10"):
        assert refusal(**{name: value}) == f"{name} must be a whole number from 1 to {most}"


def test_the_port_of_a_hosting_platform_is_used_unless_the_gateway_has_its_own() -> None:
    assert Settings.from_env(GOOD | {"PORT": "5000"}).port == 5000
    assert Settings.from_env(GOOD | {"PORT": "5000", "GATEWAY_PORT": "8001"}).port == 8001
    assert refusal(PORT="http") == "PORT must be a whole number from 1 to 65535"


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("GATEWAY_PASSWORD_MIN_LENGTH", 8, 128),
        ("GATEWAY_ARGON2_MEMORY_KIB", 19456, 1048576),
        ("GATEWAY_ARGON2_PASSES", 2, 16),
        ("GATEWAY_REDIS_TIMEOUT_MS", 10, 5000),
    ],
)
def test_a_number_outside_its_bounds_is_refused(name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert Settings.from_env(GOOD | {name: str(value)})
    for value in (0, 1, least - 1, most + 1):
        assert refusal(**{name: str(value)}) == f"{name} must be a whole number from {least} to {most}"


@pytest.mark.parametrize(
    "url",
    ["usage.db", "sqlite://usage.db", "sqlite:///", "sqlite:///a?mode=ro", "postgres://host/db", "postgresql:///db",
     "postgresql://[::1/db", "mysql://host/db"],
)  # fmt: skip
def test_an_archive_of_another_form_is_refused(url: str) -> None:
    assert refusal(GATEWAY_ARCHIVE=url).startswith("GATEWAY_ARCHIVE must look like sqlite:///")


@pytest.mark.parametrize("url", ["", "sqlite:///usage.db", "sqlite:////var/lib/usage.db", "postgresql://u:p@host/db"])
def test_an_archive_is_a_sqlite_file_or_a_postgresql_database(url: str) -> None:
    assert Settings.from_env(GOOD | {"GATEWAY_ARCHIVE": url}).archive_url == url
    assert "u:p" not in repr(Settings.from_env(GOOD | {"GATEWAY_ARCHIVE": url}))


def test_redis_may_be_silent_for_250_ms_by_default() -> None:
    assert Settings.from_env(GOOD).redis_timeout_ms == 250


def test_length_and_cost_of_passwords_are_configurable() -> None:
    settings = Settings.from_env(GOOD)
    assert (settings.password_policy.min_length, settings.password_policy.breached) == (15, None)
    assert (settings.argon2_memory_kib, settings.argon2_passes) == (19456, 2)
    env = {"GATEWAY_PASSWORD_MIN_LENGTH": "20", "GATEWAY_ARGON2_MEMORY_KIB": "65536", "GATEWAY_ARGON2_PASSES": "3"}
    settings = Settings.from_env(GOOD | env)
    assert settings.password_policy.min_length == 20
    assert (settings.argon2_memory_kib, settings.argon2_passes) == argon2_cost(env) == (65536, 3)
    assert password_policy(env) == settings.password_policy


def test_breached_passwords_come_from_the_operators_file(tmp_path: Path) -> None:
    path = tmp_path / "breached.txt"
    path.write_text("correct horse battery staple\n")
    policy = Settings.from_env(GOOD | {"GATEWAY_BREACHED_PASSWORDS": str(path)}).password_policy
    assert len(policy.reasons("correct horse battery staple")) == 1
    assert policy.reasons("correct horse battery stable") == []


@pytest.mark.parametrize("content", [None, "", "\n\n", f"{'B' * 40}:1\n{'A' * 40}:1\n", f"{'A' * 32}:1\n", "\0"])
def test_an_unusable_file_of_breached_passwords_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "breached.txt"
    if content is not None:
        path.write_text(content)
    text = refusal(GATEWAY_BREACHED_PASSWORDS=str(path))
    assert text.startswith(f"GATEWAY_BREACHED_PASSWORDS: {path} ")


def test_the_log_format_is_one_of_two() -> None:
    assert Settings.from_env(GOOD | {"GATEWAY_LOG": "console"}).log_format == "console"
    assert refusal(GATEWAY_LOG="JSON") == "GATEWAY_LOG must be one of: json, console"


def test_trusted_proxies_are_networks() -> None:
    value = "10.0.0.0/8, 192.0.2.7,,fd00::/8"
    trusted = Settings.from_env(GOOD | {"GATEWAY_TRUSTED_PROXIES": value}).trusted_proxies
    assert [str(network) for network in trusted] == ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]


@pytest.mark.parametrize("value", ["10.0.0.1/8", "proxy", "10.0.0.0/33", "10.0.0.0/8;10.1.0.0/16", "*", "::/129"])
def test_a_text_that_is_not_a_network_is_refused(value: str) -> None:
    assert refusal(GATEWAY_TRUSTED_PROXIES=f"192.0.2.0/24,{value}").startswith("GATEWAY_TRUSTED_PROXIES ")


def test_the_header_of_client_addresses_is_one_that_trusted_proxies_write() -> None:
    settings = Settings.from_env(
        GOOD | {"GATEWAY_ADDRESS_HEADER": "X-Real-IP", "GATEWAY_TRUSTED_PROXIES": "0.0.0.0/0,::/0"}
    )
    assert settings.address_header == "X-Real-IP"
    assert Settings.from_env(GOOD).address_header == ""
    assert refusal(GATEWAY_ADDRESS_HEADER="X-Real-IP").startswith("GATEWAY_ADDRESS_HEADER needs GATEWAY_TRUSTED")
    assert refusal(GATEWAY_ADDRESS_HEADER="Host").startswith("GATEWAY_ADDRESS_HEADER must be the name of a header")


def test_origins_are_a_list() -> None:
    value = "https://app.example.com, http://localhost:*,http://127.0.0.1:3000/ ,,http://[::1]:5173"
    origins = ("https://app.example.com", "http://localhost:*", "http://127.0.0.1:3000", "http://[::1]:5173")
    assert Settings.from_env(GOOD | {"GATEWAY_CORS_ORIGINS": value}).cors_origins == origins
    assert Settings.from_env(GOOD | {"GATEWAY_CORS_ORIGINS": "*"}).cors_origins == ("*",)


def test_origins_are_normalised_as_browsers_send_them() -> None:
    """RFC 6454 section 6.2: in lower case, without the scheme's own port."""
    value = (
        "https://App.Example.com,https://a.example:443,http://b.example:80,https://c.example:80,http://d.example:443"
    )
    kept = ("https://app.example.com", "https://a.example", "http://b.example", "https://c.example:80")
    found = Settings.from_env(GOOD | {"GATEWAY_CORS_ORIGINS": value}).cors_origins
    assert found == (*kept, "http://d.example:443")


@pytest.mark.parametrize("value", ["*,https://app.example.com", "https://app.example.com,*", "*,*"])
def test_star_with_other_origins_is_refused(value: str) -> None:
    """Only listed origins get credentials; a list that contains * would look like one but not be one."""
    assert refusal(GATEWAY_CORS_ORIGINS=value).startswith("GATEWAY_CORS_ORIGINS: *")


@pytest.mark.parametrize(
    "value",
    [
        "app.example.com",
        "null",
        "https://*.example.com",
        "https://app.example.com/path",
        "https://app.example.com?q",
        "https://user@app.example.com",
        "ftp://app.example.com",
        "https://",
        "https://app.example.com:**",
        "https://a.example\nhttps://b.example",
        "javascript:alert(1)",
    ],
)
def test_a_text_that_is_not_an_origin_is_refused(value: str) -> None:
    assert refusal(GATEWAY_CORS_ORIGINS=f"https://good.example,{value}").startswith("GATEWAY_CORS_ORIGINS")


@pytest.mark.parametrize("url", ["", "https://gateway.example.com", "http://localhost:8000", "http://127.0.0.1:8000"])
def test_cookies_are_off_unless_they_are_turned_on(url: str) -> None:
    given = GOOD | {"GATEWAY_PUBLIC_URL": url}
    assert not Settings.from_env(given).cookies
    assert Settings.from_env(given | {"GATEWAY_COOKIES": "on"}).cookies
    assert refusal(GATEWAY_PUBLIC_URL=url, GATEWAY_COOKIES="yes") == "GATEWAY_COOKIES must be one of: off, on"


@pytest.mark.parametrize("url", ["http://10.0.0.7:8000", "http://gateway:8000"])
def test_cookies_are_refused_where_browsers_would_not_keep_them(url: str) -> None:
    assert refusal(GATEWAY_PUBLIC_URL=url, GATEWAY_COOKIES="on").startswith("GATEWAY_COOKIES needs an https://")
    assert Settings.from_env(GOOD | {"GATEWAY_PUBLIC_URL": url}).public_url == url


def test_missing_100ms_credentials_are_named() -> None:
    assert hms_given({}) == (False, ["HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "HMS_TEMPLATE_ID"])
    assert hms_given({"HMS_APP_SECRET": "x"}) == (True, ["HMS_APP_ACCESS_KEY", "HMS_TEMPLATE_ID"])
    assert hms_given(GOOD) == (True, [])


# --- sources of settings ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an environment without the gateway's settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("HMS_", "GATEWAY_", "REDIS_")):
            monkeypatch.delenv(name)
    return tmp_path


def write(path: Path, **values: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))


def test_settings_come_from_the_env_file(folder: Path) -> None:
    write(folder / ".env", **GOOD)
    assert Settings.from_env().hms_app_secret == HMS


def test_the_environment_overrides_the_env_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / ".env", **GOOD, GATEWAY_PORT="8001", GATEWAY_WORKERS="2")
    monkeypatch.setenv("GATEWAY_PORT", "8002")
    settings = Settings.from_env()
    assert (settings.port, settings.workers) == (8002, 2)


def test_an_empty_value_in_the_environment_does_not_hide_the_env_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / ".env", **GOOD)
    monkeypatch.setenv("HMS_APP_SECRET", "")
    assert Settings.from_env().hms_app_secret == HMS


def test_a_dollar_in_the_env_file_stays_a_dollar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME_OF_TESTS", "expanded")
    write(folder / ".env", REDIS_URL="redis://:a${HOME_OF_TESTS}b@h:6379")
    assert load_env()["REDIS_URL"] == "redis://:a${HOME_OF_TESTS}b@h:6379"


def test_the_env_file_of_another_folder_can_be_read(folder: Path) -> None:
    write(folder / "elsewhere" / ".env", REDIS_URL="redis://elsewhere:1")
    assert load_env(folder / "elsewhere")["REDIS_URL"] == "redis://elsewhere:1"
    assert "REDIS_URL" not in load_env()


def test_a_running_demo_is_found_if_no_redis_is_configured(folder: Path) -> None:
    write(folder / ".gateway" / DEMO_ENV, **GOOD)
    assert Settings.from_env().gateway_secrets == (GATEWAY,)


def test_the_demos_data_folder_is_configurable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "data" / DEMO_ENV, REDIS_URL="redis://demo:1")
    assert "REDIS_URL" not in load_env()
    monkeypatch.setenv("GATEWAY_DATA", "data")
    assert load_env()["REDIS_URL"] == "redis://demo:1"


@pytest.mark.parametrize("where", ["environment", "env file"])
def test_the_demo_is_ignored_if_a_redis_is_configured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    write(folder / ".gateway" / DEMO_ENV, **GOOD)
    if where == "environment":
        monkeypatch.setenv("REDIS_URL", "redis://mine:1")
    else:
        write(folder / ".env", REDIS_URL="redis://mine:1")
    env = load_env()
    assert env["REDIS_URL"] == "redis://mine:1"
    assert not HIDDEN - {"REDIS_URL"} & env.keys()


def test_settings_override_the_demos_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / ".gateway" / DEMO_ENV, **GOOD, GATEWAY_PORT="8000")
    monkeypatch.setenv("GATEWAY_PORT", "9000")
    assert Settings.from_env().port == 9000


def test_an_env_file_that_is_not_text_is_refused_by_name(folder: Path) -> None:
    (folder / ".env").write_bytes(b"REDIS_URL=redis://\xff\xfe")
    with pytest.raises(SettingsError, match=r"^\.env cannot be read"):
        load_env()


def test_a_named_file_is_read_instead_of_the_env_file_and_the_demos(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_GATEWAY_ENV_FILE", "")  # restored afterwards
    write(folder / ".env", GATEWAY_HOST="10.0.0.1", GATEWAY_PORT="7000")
    write(folder / ".gateway" / DEMO_ENV, **GOOD)
    write(folder / "etc" / "env", GATEWAY_PORT="9000", GATEWAY_LOG="console")
    monkeypatch.setenv("GATEWAY_LOG", "json")
    use_env_file(Path("etc/env"))
    monkeypatch.chdir(folder / "etc")  # the path was relative to the first folder
    env = load_env()
    assert (env["GATEWAY_PORT"], env["GATEWAY_LOG"], "GATEWAY_HOST" in env) == ("9000", "json", False)
    monkeypatch.chdir(folder)
    assert "REDIS_URL" not in load_env()


def test_a_named_file_that_cannot_be_read_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"^--env-file: etc/env cannot be read: there is no such file$"):
        use_env_file(Path("etc/env"))
    (folder / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"^--env-file: binary cannot be read: it is not UTF-8 text$"):
        use_env_file(Path("binary"))


def test_without_redis_the_refusal_points_to_the_demo(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"^REDIS_URL is not set.*gateway demo"):
        redis_url(load_env())
    with pytest.raises(SettingsError, match=r"^REDIS_URL, .* and GATEWAY_SECRET are not set.*gateway demo"):
        Settings.from_env()


def test_the_command_line_reaches_worker_processes_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "1")
    monkeypatch.setenv("GATEWAY_HOST", "kept")
    module.override(GATEWAY_PORT=8080, GATEWAY_HOST=None)
    assert (os.environ["GATEWAY_PORT"], os.environ["GATEWAY_HOST"]) == ("8080", "kept")


def test_the_demos_file_is_never_read_with_a_real_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo.env").write_text("REDIS_URL=redis://127.0.0.1:1/0\nHMS_API_URL=http://127.0.0.1:2/v2\n")
    for name in ("REDIS_URL", "HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "HMS_TEMPLATE_ID", "HMS_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GATEWAY_DATA", str(tmp_path))
    assert load_env(tmp_path)["REDIS_URL"] == "redis://127.0.0.1:1/0"
    monkeypatch.setenv("HMS_APP_ACCESS_KEY", "a-real-key")
    env = load_env(tmp_path)
    assert "REDIS_URL" not in env
    assert "HMS_API_URL" not in env


@pytest.mark.parametrize("name", ["HMS_APP_SECRET", "GATEWAY_SECRET"])
@pytest.mark.parametrize(
    "value",
    [
        "Pz8s2Df4hJ6kxXxVn3Gt9Yb0sRe6WcTT12",
        # Values that secrets.token_urlsafe generates once in 32,768 times.
        "my-Pz8s2Df4hJ6kQxVn3Gt9Yb0sRe6WcTT",
        "MY_Pz8s2Df4h-6kQxVn3Gt9Yb_sRe6WcTT",
        "mY-Pz8s2Df4h-6kQxVn3Gt9Yb_sRe6WcTT",
    ],
)
def test_a_random_secret_is_never_taken_for_a_placeholder(name: str, value: str) -> None:
    assert Settings.from_env(GOOD | {name: value})


@pytest.mark.parametrize(
    ("value", "bind"),
    [("127.0.0.1:8001", ("127.0.0.1", 8001)), ("[::1]:1", ("::1", 1)), ("localhost:65535", ("localhost", 65535))],
)
def test_operators_may_have_a_listener_of_their_own(value: str, bind: tuple[str, int]) -> None:
    assert Settings.from_env(GOOD | {"GATEWAY_OPERATOR_BIND": value}).operator_bind == bind
    assert Settings.from_env(GOOD).operator_bind is None


@pytest.mark.parametrize(
    "value", ["8001", ":8001", "127.0.0.1", "127.0.0.1:0", "::1:8001", "a:65536", "a b:1", "a:1/x"]
)
def test_a_malformed_operators_listener_is_refused(value: str) -> None:
    assert refusal(GATEWAY_OPERATOR_BIND=value).startswith("GATEWAY_OPERATOR_BIND must look like")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1"])
def test_the_operators_listener_must_not_have_the_public_port(host: str) -> None:
    text = refusal(GATEWAY_OPERATOR_BIND=f"{host}:8000")
    assert text.startswith("GATEWAY_OPERATOR_BIND must have another port")
    assert refusal(GATEWAY_OPERATOR_BIND=f"{host}:9000", GATEWAY_PORT="9000") == text


# --- GATEWAY_SIGNING_KEY ---

PUBLIC = {"GATEWAY_PUBLIC_URL": "https://gateway.example.com/"}


@pytest.fixture
def pem() -> str:
    return write_keys([make_key("es256", datetime.now(UTC)), make_key("ed25519", datetime.now(UTC))])


@pytest.mark.parametrize("how", ["path", "text", "text with escapes"])
def test_signing_keys_come_from_a_file_or_the_setting_itself(how: str, pem: str, tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    path.write_text(pem)
    given = {"path": str(path), "text": pem, "text with escapes": pem.replace("\n", "\\n")}[how]
    env = GOOD | PUBLIC | {"GATEWAY_SIGNING_KEY": given}
    keys = Settings.from_env(env).token_keys
    assert keys is not None
    assert keys.issuer == "https://gateway.example.com"
    assert [key.algorithm for key in keys.keys] == ["ES256", "EdDSA"]
    assert signing_key_path(env) == (path if how == "path" else None)


def test_without_signing_keys_there_are_none() -> None:
    assert Settings.from_env(GOOD).token_keys is None
    assert signing_key_path(GOOD) is None


def test_signing_keys_need_the_public_url(pem: str) -> None:
    assert refusal(GATEWAY_SIGNING_KEY=pem) == (
        "GATEWAY_SIGNING_KEY needs GATEWAY_PUBLIC_URL, which names the issuer of the tokens"
    )


def test_refused_signing_key_is_named_and_not_repeated(pem: str, tmp_path: Path) -> None:
    missing = refusal(**PUBLIC, GATEWAY_SIGNING_KEY=str(tmp_path / "none.pem"))
    assert missing == "GATEWAY_SIGNING_KEY: the file cannot be read: No such file or directory"
    for text in (pem[:-40], pem.replace("PRIVATE KEY", "RSA KEY"), pem + pem):
        said = refusal(**PUBLIC, GATEWAY_SIGNING_KEY=text)
        assert said.startswith("GATEWAY_SIGNING_KEY: it has ")
        assert not any(line in said for line in text.splitlines() if len(line) > 20)


def test_repr_shows_no_signing_key(pem: str) -> None:
    settings = Settings.from_env(GOOD | PUBLIC | {"GATEWAY_SIGNING_KEY": pem})
    assert "token_keys" not in repr(settings)
    assert not any(line in repr(settings) for line in pem.splitlines() if len(line) > 20)


def test_traces_are_off_by_default_and_ignore_the_variables_of_opentelemetry() -> None:
    settings = Settings.from_env(GOOD | {"OTEL_TRACES_SAMPLER": "nonsense"})
    assert (settings.traces, settings.open_telemetry) == ("off", {})


def test_traces_are_sampled_by_a_share_of_our_own_unless_another_sampler_is_set() -> None:
    ours = Settings.from_env(GOOD | {"GATEWAY_TRACES": "on", "OTEL_EXPORTER_OTLP_HEADERS": "", "PATH": "/bin"})
    assert ours.open_telemetry == {
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.05",
        "OTEL_SERVICE_NAME": "hms-gateway",
    }
    theirs = {
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=video,deployment.environment.name=test",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=key-of-the-collector",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.monitoring.svc:4318",
    }
    settings = Settings.from_env(GOOD | theirs | {"GATEWAY_TRACES": "on"})
    assert settings.open_telemetry == theirs
    assert "key-of-the-collector" not in repr(settings)


@pytest.mark.parametrize("share", ["0", "1", "0.25", ".5", "1.0", "0.000000001"])
def test_a_share_of_traces_is_from_0_to_1(share: str) -> None:
    settings = Settings.from_env(GOOD | {"GATEWAY_TRACES": "on", "OTEL_TRACES_SAMPLER_ARG": share})
    assert settings.open_telemetry["OTEL_TRACES_SAMPLER_ARG"] == share


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_TRACES", "yes"),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "5%"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "br"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://key:word@collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector:99999/v1/traces"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1000000"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
    ],
)
def test_a_wrong_setting_of_traces_is_named(name: str, value: str) -> None:
    assert refusal(**({"GATEWAY_TRACES": "on"} | {name: value})).startswith(name)


def test_traces_of_proxies_need_proxies_that_are_trusted() -> None:
    assert "GATEWAY_TRUSTED_PROXIES" in refusal(GATEWAY_TRACES="proxied")
    assert Settings.from_env(GOOD | {"GATEWAY_TRACES": "proxied", "GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8"})


def test_shared_variables_replace_all_of_their_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "old")
    monkeypatch.setenv("OTHER", "kept")
    module.share({"OTEL_SERVICE_NAME": "new"}, "OTEL_")
    assert {name: value for name, value in os.environ.items() if name.startswith(("OTEL_", "OTHER"))} == {
        "OTEL_SERVICE_NAME": "new",
        "OTHER": "kept",
    }
    monkeypatch.delenv("OTEL_SERVICE_NAME")
