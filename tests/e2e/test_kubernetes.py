"""The pod of deploy/k8s: its process gets what the Deployment says, from what `gateway init` wrote in that folder."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import forked
from tests.accounts import password_of
from tests.e2e.commands import assert_done
from tests.e2e.templates import create_template, role
from tests.e2e.test_drain import LINES, keep_asking
from tests.e2e.volley import open_lines
from tests.kubernetes import Document, copied, only, rendered
from tests.servers import HOST, Installation, Service, free_port


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Valkey, the local 100ms, and the pod's process in a folder like the one that the kubelet mounts."""
    folder = tmp_path_factory.mktemp("pod")
    at = Installation(folder)
    try:
        at.valkey.start()
        at.start_emulator()
        at.env["HMS_TEMPLATE_ID"] = create_template(at, teacher=role("endRoom"), pupil=role())
        documents = written_by_init(at)
        at.env = environment(documents)
        at.env |= {"PATH": str(Path(sys.executable).parent), "GATEWAY_DATA": "/data"}  # as the image has it
        ports = (str(at.port), f"{HOST}:{free_port()}")
        assert (at.env["GATEWAY_PORT"], at.env["GATEWAY_OPERATOR_BIND"]) == ("8000", "127.0.0.1:8001")
        at.env["GATEWAY_PORT"], at.env["GATEWAY_OPERATOR_BIND"] = ports
        at.gateway = Service(command(documents), folder=mounted(documents, folder), env=at.env, log=folder / "pod.log")
        at.gateway.real = True
        at.start_gateway()
        yield at
    finally:
        at.stop()


def written_by_init(at: Installation) -> list[Document]:
    """Run `gateway init` in a copy of the folder, and return what kubectl makes of it."""
    folder = copied(at.folder / "k8s", "gateway-policy", "gateway-keys")
    env = {name: value for name, value in at.env.items() if name not in ("GATEWAY_SECRET", "GATEWAY_LOG")}
    here = Installation(folder, valkey=at.valkey)
    here.env = env
    said = here.command("init", "--signing-key", "--public-url", "https://video.example.com")
    assert "Wrote policy.toml." in assert_done(said, env)
    return rendered(folder)


def environment(documents: list[Document]) -> dict[str, str]:
    """Return the variables of the container as the kubelet sets them: later ones replace earlier ones."""
    [container] = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        if "secretRef" in source:
            data = only(documents, "Secret", source["secretRef"]["name"])["data"]
            found |= {name: base64.b64decode(value).decode() for name, value in data.items()}
        else:
            found |= only(documents, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {one["name"]: one["value"] for one in container["env"]}


def command(documents: list[Document]) -> list[str]:
    [container] = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    program, *arguments = container["command"]
    assert program == "gateway"
    return [str(one) for one in arguments]


def mounted(documents: list[Document], at: Path) -> Path:
    """Return a folder that no one may write to, with the links and files of the projected volume."""
    [volume] = only(documents, "Deployment")["spec"]["template"]["spec"]["volumes"]
    folder, version = at / "mounted", "..2026_11_29"
    (folder / version).mkdir(parents=True)
    (folder / "..data").symlink_to(version)
    for source in volume["projected"]["sources"]:
        for kind, data in (("configMap", "ConfigMap"), ("secret", "Secret")):
            if kind not in source:
                continue
            for name, text in only(documents, data, source[kind]["name"])["data"].items():
                content = text.encode() if kind == "configMap" else base64.b64decode(text)
                (folder / version / name).write_bytes(content)
                (folder / name).symlink_to(f"..data/{name}")
    (folder / version).chmod(0o555)
    folder.chmod(0o555)
    return folder


def test_pod_serves_with_the_policy_and_keys_of_init_and_writes_no_file(pod: Installation) -> None:
    in_pod = partial(forked.run, folder=pod.gateway.folder, env=pod.env)  # as `kubectl exec` runs it
    assert_done(in_pod(("users", "add", "hanna", "--role", "host"), stdin=password_of("hanna")), pod.env)
    checked = assert_done(in_pod(("doctor",)), pod.env)
    assert "ok    policy" in checked
    with pod.client() as client:
        assert len(client.get("/.well-known/jwks.json").json()["keys"]) == 2
        assert client.get("/api/admin/overview").status_code == 404, "only on the listener of operators"
        login = client.post("/api/auth/login", json={"username": "hanna", "password": password_of("hanna")})
    with pod.client(login.json()["access_token"]) as hanna:
        room = hanna.post("/api/rooms", json={}).json()["room"]["id"]
        assert hanna.post(f"/api/rooms/{room}/token", json={}).json()["role"] == "pupil"
    folder = pod.gateway.folder
    assert sorted(os.listdir(folder)) == ["..2026_11_29", "..data", "policy.toml", "signing.pem"]


async def test_pod_that_is_stopped_under_load_fails_no_request(pod: Installation) -> None:
    """During preStop, proxies stop opening connections; SIGTERM comes then, with requests on those that are open."""
    process = pod.gateway.process
    assert isinstance(process, subprocess.Popen)
    answered: list[int] = []
    failed: list[str] = []
    async with open_lines(pod.port, LINES) as lines:
        asking = [asyncio.create_task(keep_asking(line, n, answered, failed)) for n, line in enumerate(lines)]
        await asyncio.sleep(0.5)
        before = len(answered)
        process.send_signal(signal.SIGTERM)
        await asyncio.gather(*asking)
        await asyncio.to_thread(process.wait, 10)
    assert failed == []
    assert len(answered) > before > LINES
    assert set(answered) <= {200, 401, 429}
