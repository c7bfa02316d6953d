"""The Dockerfile and the files of compose are compared with what they are about; no engine runs here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import gateway
from gateway.cli import _ELSEWHERE

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_labels_of_the_image_say_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', DOCKERFILE))
    assert labels == {
        "title": project["name"],
        "description": project["description"],
        "source": project["urls"]["Homepage"],
        "licenses": project["license"],
        "version": "$VERSION",
        "revision": "$REVISION",
        "created": "$CREATED",
    }
    assert re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE, re.MULTILINE) == [gateway.__version__]


def test_build_gets_every_file_that_the_image_is_made_of() -> None:
    allowed = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    assert {name for names in copied for name in names} == allowed
    assert all((ROOT / name).exists() for name in allowed)
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    assert "custom" in hook
    assert "hatch_build.py" in allowed, "hatchling runs it"


def test_image_has_the_compiled_standard_library_of_every_command() -> None:
    lists = re.findall(r"from gateway\.cli import ([a-z, ]+)", DOCKERFILE)
    assert {name.strip() for names in lists for name in names.split(",")} >= set(_ELSEWHERE)


@pytest.mark.parametrize("service", ["redis", "emulator"])
def test_services_of_their_own_setting_start_with_every_profile(service: str) -> None:
    """With any --profile, compose no longer enables the empty one that a service without the setting has."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    others = {one for name in ("postgres", "prometheus", "grafana") for one in services[name]["profiles"]}
    own = [re.sub(r"\$\{[A-Z_]+:\+[^}]*\}", "", one) for one in services[service]["profiles"]]
    assert {"", "scale", *others} == set(own)
    assert services["balancer"]["profiles"] == ["scale"]
    assert all(one.startswith("${") for one in services[service]["profiles"]), "with the setting, none can be enabled"
    known = {"redis", "emulator", "balancer", "postgres", "prometheus", "grafana"}
    assert {name for name, one in services.items() if "profiles" in one} == known
