"""The packed clients for TypeScript and React, as somebody gets them who does not have this repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.e2e.node import CLIENT, build_client, require_compiler
from tests.servers import Installation

USE = """
import { GatewayProblem, createHMSService } from "@hms-gateway/client";

const client = createHMSService({ baseUrl: `${process.env.GATEWAY_URL}/api` });
await client.login(process.env.NAME, process.env.PASSWORD);
const { room } = await client.createRoom({ name: "From the package" });
const refusal = await client.getAuthToken(room.id, "ghost").catch((error) => error);
console.log(JSON.stringify({ room, refused: refusal instanceof GatewayProblem && refusal.code }));
"""
TYPED = """
import { type CreateRoomResponse, GatewayProblem, createHMSService } from "@hms-gateway/client";

const client = createHMSService({ baseUrl: "https://gateway.example.com/api", cookies: true });
export const made: Promise<CreateRoomResponse> = client.createRoom({ name: "typed" });
export const code = (error: unknown): string | undefined => (error instanceof GatewayProblem ? error.code : undefined);
// @ts-expect-error  no such option
createHMSService({ baseUrl: "https://gateway.example.com/api", cookie: true });
"""


def run(folder: Path, *command: str, **env: str) -> str:
    """Run a command with a home of its own and without the network; return what it prints."""
    settings = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "npm_config_offline": "true"}
    done = subprocess.run(
        command, cwd=folder, env=settings | env, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, packed from a copy of its sources: other tests compile and use the originals meanwhile."""
    require_compiler()
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(CLIENT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "dist", "build"))
    (folder / "node_modules").symlink_to(CLIENT / "node_modules")
    (folder / "dist").mkdir()
    (folder / "dist" / "removed-long-ago.js").touch()
    run(folder, "npm", "pack")
    (packed,) = folder.glob("*.tgz")
    return packed


@pytest.fixture(scope="module")
def elsewhere(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder into which the package has been installed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run(folder, "npm", "install", "--no-audit", "--no-fund", str(tarball))
    return folder


def test_package_has_the_compiled_client_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as packed:
        names = {name.removeprefix("package/") for name in packed.getnames()}
        described = json.load(packed.extractfile("package/package.json"))  # type: ignore[arg-type]
    modules = {one.stem for one in (CLIENT / "src").glob("*.ts")}
    compiled = {f"dist/{name}{end}" for name in modules for end in (".js", ".d.ts")}
    assert names == {"package.json", "README.md", "LICENSE"} | compiled
    assert "private" not in described
    assert described["repository"]["directory"] == "clients/typescript"
    assert not described.get("dependencies")


def test_package_installs_into_an_empty_folder_and_works(installation: Installation, elsewhere: Path) -> None:
    assert [one.name for one in (elsewhere / "node_modules").iterdir() if not one.name.startswith(".")] == [
        "@hms-gateway"
    ]
    (elsewhere / "use.mjs").write_text(USE)
    known = {"GATEWAY_URL": installation.url, "NAME": "hanna", "PASSWORD": installation.passwords["hanna"]}
    said = json.loads(run(elsewhere, "node", "use.mjs", **known))
    assert said["room"]["name"] == "From the package"
    assert said["refused"] in ("role_not_allowed", "unknown_role")


def test_package_has_types_for_a_strict_compiler(elsewhere: Path) -> None:
    (elsewhere / "typed.mts").write_text(TYPED)
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext"]
    run(elsewhere, *require_compiler(), *options, "typed.mts")


def test_package_can_be_required(elsewhere: Path) -> None:
    """As its README says of Node since 20.19."""
    said = run(elsewhere, "node", "-p", "typeof require('@hms-gateway/client').createHMSService")
    assert said.strip() == "function"


def test_hooks_for_react_install_beside_the_client(tarball: Path, tmp_path: Path) -> None:
    sources, installed = CLIENT.parent / "react", CLIENT.parent / "node_modules"
    if not installed.is_dir():
        assert not os.environ.get("CI"), "needs `npm ci` in clients"
        pytest.skip("needs `npm ci` in clients")
    build_client()  # whose types the hooks are compiled with
    copy, elsewhere = tmp_path / "react", tmp_path / "elsewhere"
    shutil.copytree(sources, copy, ignore=shutil.ignore_patterns("node_modules", "dist", "build"))
    (copy / "node_modules").symlink_to(installed)
    run(copy, "npm", "pack")
    (packed,) = copy.glob("*.tgz")
    with tarfile.open(packed) as files:
        names = {name.removeprefix("package/") for name in files.getnames()}
    compiled = {f"dist/{one.stem}{end}" for one in (sources / "src").glob("*.ts") for end in (".js", ".d.ts")}
    assert names == {"package.json", "README.md", "LICENSE"} | compiled
    elsewhere.mkdir()
    # Without the network there is no React to install as a peer; the one of the tests stands in.
    run(elsewhere, "npm", "install", "--no-audit", "--no-fund", "--legacy-peer-deps", str(tarball), str(packed))
    (elsewhere / "node_modules" / "react").symlink_to(installed / "react")
    (elsewhere / "use.mjs").write_text(
        'import { useGateway } from "@hms-gateway/react"; console.log(typeof useGateway);'
    )
    assert run(elsewhere, "node", "use.mjs").strip() == "function"
