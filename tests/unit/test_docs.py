"""The documentation is compared with the code."""

from __future__ import annotations

import ast
import math
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from docs import generate
from docs.gcra import TARGET, draw
from gateway.apidoc.components import HEADERS
from gateway.emulator import active_rooms, control, joining, room_codes, rooms, sessions, templates, webhook_control
from gateway.metering.leader import LEASE_S, RENEW_S
from gateway.policy.actions import ACTIONS, PERMISSIONS, RELATIONS, ROOM_ACTIONS
from gateway.policy.decide import Rule
from gateway.policy.tables import PolicyTable
from tests.chaos.table import rows_of, title_of

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"\b(?:REDIS_(?:URL|CA_FILE|FINGERPRINT)|(?:HMS|GATEWAY)_[A-Z0-9_]+)\b")
PAGES = [page for page in ROOT.rglob("*.md") if not {"node_modules", ".venv"} & set(page.relative_to(ROOT).parts)]
DEMO_ONLY = {"GATEWAY_DATA", "GATEWAY_HOST", "GATEWAY_PORT"}
COMPOSE_ONLY = {"GATEWAY_BIND"}
BALANCER_ONLY = {"GATEWAY_DOMAIN", "GATEWAY_REPLICAS"}


def settings_in_code() -> set[str]:
    return set(re.findall(rf'"({NAME.pattern})"', (ROOT / "gateway" / "settings.py").read_text()))


def test_settings_page_lists_exactly_the_settings() -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == settings_in_code()


def test_every_target_of_the_makefile_has_a_recipe() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"[a-z]+", re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0])
    assert set(re.findall(r"echo \"make ([a-z]+)", text)) < set(targets)
    assert [one for one in targets if not re.search(rf"^{one}:.*\n(?:ifdef .*\n)?\t", text, re.MULTILINE)] == []


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert set(NAME.findall(page.read_text())) <= settings_in_code() | COMPOSE_ONLY | BALANCER_ONLY, page.name


def test_compose_passes_every_setting_to_the_gateway() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    assert settings_in_code() - DEMO_ONLY | COMPOSE_ONLY <= set(NAME.findall(compose))
    balancer = (ROOT / "deploy" / "compose" / "balancer.yml").read_text()
    assert set(NAME.findall(balancer)) - settings_in_code() - COMPOSE_ONLY - DEMO_ONLY == BALANCER_ONLY


def test_page_says_how_long_the_chores_may_rest() -> None:
    """A process asks for the lock every RENEW_S, and the one that died may just have taken it for LEASE_S."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    [said_s] = re.findall(r"if it dies, another takes over within ([0-9]+) s", page)
    assert math.ceil(LEASE_S + RENEW_S) == int(said_s)


def test_picture_of_gcra_matches_the_limiter() -> None:
    assert TARGET.read_text() == draw(), "run python -m docs.gcra"


def test_picture_of_the_packages_has_the_enforced_layers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    page = (ROOT / "docs" / "architecture.md").read_text()
    picture = page[page.index("┌─ gateway") : page.index("┌─ auth")]
    columns = re.findall(r"^│ (.{24})", picture, re.MULTILINE)
    assert [name.strip() for column in columns for name in column.split("|")] == " | ".join(layers[1:]).split(" | ")


def test_architecture_page_names_every_module_of_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page[page.index("| package | modules |") : page.index("## One request")]
    packages = (
        "auth limits gateway/http gateway/accounts gateway/rooms gateway/usage gateway/policy gateway/redis gateway/hms"
    )
    for package in packages.split():
        row = next(line for line in table.splitlines() if line.startswith(f"| `{package}`"))
        modules = {path.stem for path in (ROOT / package).glob("[a-z]*.py")}
        assert modules == set(re.findall(r"`([a-z_]+)`", row)) - {package}, package


def test_architecture_page_lists_exactly_the_redis_keys() -> None:
    sources = [*(ROOT / "auth").rglob("*"), *(ROOT / "limits").rglob("*"), *(ROOT / "gateway").rglob("*")]
    code = "\n".join(path.read_text() for path in sources if path.suffix in {".py", ".lua"})
    rows = re.findall(r"^\| (`[a-z]+:1.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    listed = {key for row in rows for key in re.findall(r"`([a-z]+):1", row)}
    assert len(listed) > 25
    assert set(re.findall(r"\b([a-z]+):1(?=[:\"])", code)) <= listed
    for key in listed:
        assert re.search(rf'\b{key}:1(?=[:"])', code), key


def test_every_relative_link_has_a_target() -> None:
    for page in PAGES:
        for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]+)?\)", page.read_text()):
            target = (page.parent / link) if link else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}{anchor}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [generate.API, generate.ROOMS], ids=lambda page: page.name)
def test_an_outdated_generated_page_fails_the_check_with_the_remedy(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API", "ROOMS"):
        copy = tmp_path / getattr(generate, name).name
        copy.write_text(getattr(generate, name).read_text())
        monkeypatch.setattr(generate, name, copy)
    generate.main(["--check"])
    copy, before = tmp_path / page.name, page.read_text()
    copy.write_text(before.replace("| yes |", "| no |").replace("Create a room", "Make a room"))
    assert copy.read_text() != before
    with pytest.raises(SystemExit, match=rf"^{page.name} in docs/ is out of date: run `make docs`, and commit it$"):
        generate.main(["--check"])
    assert copy.read_text() != before, "a check writes nothing"
    generate.main([])
    assert copy.read_text() == before


def test_api_page_uses_the_terms_of_json_and_has_every_header_field() -> None:
    page = generate.API.read_text()
    assert not re.search(r"`(?:True|False|None)`", page)
    assert "success: `true` }, sometimes with `Idempotency-Replayed`." in page
    for name, one in HEADERS.items():
        assert re.search(rf"^\| `{name}` \| [^|]+ \| {re.escape(one['description'])} \|", page, re.MULTILINE), name


def test_tables_of_the_policy_match_the_decisions() -> None:
    rows = re.findall(r"^\| (.+) \|$", generate.ROOMS.read_text(), re.MULTILINE)
    assert "member, host | participant, viewer, none (open room) | yes | yes | 403 | 403 | 403 | 403 | 403" in rows
    assert "default | owner | `guest`, `host` | `guest`" in rows
    cohost = next(row for row in rows if row.startswith("cohost | no | no |"))
    assert cohost == "cohost | no | no | " + " | ".join(["none, participant, viewer, banned"] * 3)


def test_dependencies_page_names_every_dependency_at_its_locked_release() -> None:
    locked = dict(
        re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    )
    project = (ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'^    "([a-z0-9-]+)(?:\[[a-z0-9,]+\])?>=', project, re.MULTILINE)
    wanted += re.findall(r"^[a-z]+$", (ROOT / "requirements" / "build.in").read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "dependencies.md").read_text()
    assert len(wanted) > 25
    for name in wanted:
        row = next(
            (line for line in page.splitlines() if re.match(rf"\|[^|]*\b{name}\b(?!-)", line, re.IGNORECASE)), ""
        )
        assert row, f"{name} has no row"
        assert locked[name] in row.split("|")[2], f"{name} is locked at {locked[name]}"


def test_policy_page_names_every_action_permission_section_and_rule() -> None:
    page = (ROOT / "docs" / "policy.md").read_text()
    for name in (*ACTIONS, *PERMISSIONS, *get_args(Rule)):
        assert f"`{name}`" in page, name
    for action, permission in ACTIONS.items():
        row = next(line for line in page.splitlines() if line.startswith("| `") and f"`{action}`" in line)
        assert permission is None or f"| `{permission}` |" in row, action
        rule = ROOM_ACTIONS.get(action)
        for relation in RELATIONS:
            assert (relation in row) == (rule is not None and relation in rule.relations), (action, relation)
        assert rule is None or rule.anywhere is None or f"`{rule.anywhere}`" in row, action
    headings = re.findall(r"^## \[([a-z_]+)", page, re.MULTILINE)
    assert set(headings) == set(PolicyTable.__struct_fields__)


def test_emulator_page_names_every_call_of_the_emulator() -> None:
    page = (ROOT / "docs" / "emulator.md").read_text()
    families = [("/v2", routes) for routes in (rooms, room_codes, active_rooms, sessions, templates)]
    families += [("/emulator", routes) for routes in (control, joining, webhook_control)]
    paths = {prefix + path for prefix, family in families for route in family.ROUTES for path in route.paths}
    assert len(paths) > 20
    for path in paths | {"/init", "/v2/token"}:
        assert f"{path.replace(':str', '')}`" in page, path


def test_reliability_page_has_a_row_for_every_fault() -> None:
    faults = {
        title_of(one.name)
        for module in (ROOT / "tests" / "chaos").glob("test_*.py")
        for one in ast.walk(ast.parse(module.read_text()))
        if isinstance(one, ast.AsyncFunctionDef | ast.FunctionDef) and "row" in [arg.arg for arg in one.args.args]
    }
    assert faults
    assert set(rows_of((ROOT / "docs" / "reliability.md").read_text())) == faults
