"""deploy/k8s: what kubectl renders is valid for Kubernetes, agrees with itself, and is about this gateway."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from gateway import __version__
from gateway.cli import cli
from gateway.policy.file import built_in_text
from gateway.routes.table import MONITORING, ROUTES
from gateway.server import GRACE_S
from gateway.setting_values import SettingsError
from gateway.settings import Settings
from tests.kubernetes import FOLDER, Document, copied, only, rendered
from tests.programs import require
from tests.servers import REPOSITORY
from tests.unit.gateway.test_settings import GOOD

OPTIONS = ("autoscaling-requests.yaml", "monitoring.yaml", "gateway-policy", "gateway-keys")
EXAMPLE = dict(re.findall(r"^([A-Z_]+)=(.+)$", (FOLDER / "example.env").read_text(), re.MULTILINE))
LABELS = {"app.kubernetes.io/name": "gateway"}
NEWEST = kubernetes_validate.latest_version()
OLDEST = "1.30"  # docs/deploy.md: from there on preStop can sleep without a program


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """Without any option."""
    folder = copied(tmp_path_factory.mktemp("plain") / "k8s")
    (folder / ".env").write_bytes((FOLDER / "example.env").read_bytes())
    return rendered(folder)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """With every option."""
    folder = copied(tmp_path_factory.mktemp("full") / "k8s", *OPTIONS)
    path = folder / "kustomization.yaml"
    path.write_text(re.sub(r"^  - autoscaling\.yaml.*\n", "", path.read_text(), flags=re.MULTILINE))
    (folder / ".env").write_bytes((FOLDER / "example.env").read_bytes())
    (folder / "policy.toml").write_text(built_in_text())
    (folder / "signing.pem").write_text("keys")
    return rendered(folder)


def pod_of(documents: list[Document]) -> Document:
    pod: Document = only(documents, "Deployment")["spec"]["template"]["spec"]
    return pod


def container_of(documents: list[Document]) -> Document:
    [container] = pod_of(documents)["containers"]
    return dict(container)


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of a document with its value, at any depth."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield str(key), inner
        yield from walk(inner)


def test_kustomization_has_every_file_of_the_folder() -> None:
    text = (FOLDER / "kustomization.yaml").read_text()
    others = {"kustomization.yaml", "prometheus-adapter.yaml"}  # the latter is for Helm
    assert set(re.findall(r"^  (?:# )?- ([a-z-]+\.yaml)", text, re.MULTILINE)) == {
        path.name for path in FOLDER.glob("*.yaml") if path.name not in others
    }


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_rendered_documents_fit_the_schemas_of_kubernetes(
    version: str, plain: list[Document], full: list[Document]
) -> None:
    assert len(plain) == 9
    assert len(full) == 12
    for document in (*plain, *full):
        if document["kind"] != "ServiceMonitor":  # of the Prometheus Operator, which has no schema here
            kubernetes_validate.validate(document, version, strict=True)
            assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "gateway"


def test_image_is_the_one_that_the_release_of_this_version_publishes(plain: list[Document]) -> None:
    name, _, tag = container_of(plain)["image"].rpartition(":")
    assert tag == __version__
    assert f"IMAGE: {name}\n" in (REPOSITORY / ".github" / "workflows" / "release.yml").read_text()


def test_secret_has_the_values_of_the_env_file_as_they_stand(plain: list[Document]) -> None:
    data = only(plain, "Secret")["data"]
    assert {name: base64.b64decode(value).decode() for name, value in data.items()} == EXAMPLE


def test_gateway_refuses_each_placeholder_of_the_example() -> None:
    placeholders = {name: value for name, value in EXAMPLE.items() if name not in ("REDIS_URL", "GATEWAY_PUBLIC_URL")}
    assert len(placeholders) == 6
    for name, value in placeholders.items():
        with pytest.raises(SettingsError, match=rf"^{name} "):
            Settings.from_env(GOOD | {name: value})


def test_container_runs_a_command_and_sets_settings_that_exist(plain: list[Document]) -> None:
    container = container_of(plain)
    program, *words = container["command"]
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert f'\n{program} = "gateway.cli:' in project
    command: click.Command | None = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(cli), word)
    assert command is not None
    names = {one["name"] for one in container["env"]} | set(only(plain, "ConfigMap", "gateway-settings")["data"])
    listed = re.findall(r"^\| `([A-Z0-9_]+)` \|", (REPOSITORY / "docs" / "settings.md").read_text(), re.MULTILINE)
    # Python reads it from 3.13 on, so the image must not have an older one.
    assert {*names, *EXAMPLE} <= {*listed, "PYTHON_CPU_COUNT"}
    assert re.search(r"python:?3\.1[3-9]\b", (REPOSITORY / "Dockerfile").read_text())
    given = {one["name"]: one["value"] for one in container["env"]}
    settings = Settings.from_env(GOOD | given | only(plain, "ConfigMap", "gateway-settings")["data"])
    assert settings.operator_bind == ("127.0.0.1", 8001), "only kubectl port-forward reaches the operators' listener"
    assert settings.port == container["ports"][0]["containerPort"]


def test_probes_ask_public_routes_and_only_readiness_asks_redis(plain: list[Document]) -> None:
    container = container_of(plain)
    [port] = [one["name"] for one in container["ports"]]
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {get["port"] for get in paths.values()} == {port}
    routes = {path: route for route in ROUTES for path in route.paths}
    assert [routes[get["path"]].fn.__name__ for get in paths.values()] == ["live", "live", "ready"]


def test_a_stop_leaves_time_for_proxies_and_for_running_requests(plain: list[Document]) -> None:
    pod, container = pod_of(plain), container_of(plain)
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before >= 5
    assert pod["terminationGracePeriodSeconds"] >= before + GRACE_S + 2 + 5  # 2 s for traces
    assert only(plain, "Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in only(plain, "Deployment")["spec"], "each `kubectl apply` would undo the autoscaler"


def test_pod_has_no_rights(plain: list[Document]) -> None:
    pod, container = pod_of(plain), container_of(plain)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert re.search(r"^USER 10001:10001$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    # With service links, a Service of this name would set GATEWAY_PORT to tcp://address:port.
    assert pod["enableServiceLinks"] is False
    assert only(plain, "Namespace")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    [mount], [volume] = container["volumeMounts"], pod["volumes"]
    assert mount == {"name": volume["name"], "mountPath": container["workingDir"], "readOnly": True}
    assert volume["projected"]["defaultMode"] == 0o440


def test_memory_that_is_asked_for_is_what_a_busy_gateway_takes(plain: list[Document]) -> None:
    resources = container_of(plain)["resources"]
    assert resources == {"requests": {"cpu": "500m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}
    page = (REPOSITORY / "docs" / "performance.md").read_text()
    [*_, busiest] = sorted(int(row) for row in re.findall(r"^\| the gateway \|.*\| (\d+) \|$", page, re.MULTILINE))
    assert busiest + 19 <= 128, "join tokens, and one password at a time"


def test_files_of_the_pod_are_those_that_kustomization_makes(full: list[Document]) -> None:
    [volume] = pod_of(full)["volumes"]
    policy, keys = volume["projected"]["sources"]
    assert (policy["configMap"]["optional"], keys["secret"]["optional"]) == (True, True)
    assert set(only(full, "ConfigMap", policy["configMap"]["name"])["data"]) == {"policy.toml"}
    assert set(only(full, "Secret", keys["secret"]["name"])["data"]) == {"signing.pem"}
    for source in container_of(full)["envFrom"]:
        [(kind, reference)] = source.items()
        assert only(full, {"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], reference["name"])


def test_everything_selects_the_pods_of_the_gateway(full: list[Document]) -> None:
    deployment = only(full, "Deployment")
    assert deployment["spec"]["template"]["metadata"]["labels"] == LABELS
    assert only(full, "Service")["metadata"]["labels"] == LABELS  # which the ServiceMonitor selects
    found = [value for document in full for key, value in walk(document) if key in ("selector", "podSelector")]
    found += [one["labelSelector"] for one in pod_of(full)["topologySpreadConstraints"]]
    assert len(found) == 7
    assert all(one in (LABELS, {"matchLabels": LABELS}) for one in found), found


def test_ports_lead_from_the_ingress_to_the_container(full: list[Document]) -> None:
    [port] = container_of(full)["ports"]
    [service] = only(full, "Service")["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    [rule] = only(full, "Ingress")["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "gateway", "port": {"name": service["name"]}}
    assert only(full, "Ingress")["spec"]["tls"][0]["hosts"] == [rule["host"]]
    assert EXAMPLE["GATEWAY_PUBLIC_URL"] == f"https://{rule['host']}"
    [ingress] = only(full, "NetworkPolicy")["spec"]["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": port["name"]}]


def allows(rule: Document, address: str, port: int) -> bool:
    """Tell whether a rule for outgoing connections allows this one over TCP, by its address alone."""
    blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
    to = ipaddress.ip_address(address)
    return {"protocol": "TCP", "port": port} in rule["ports"] and any(
        to in ipaddress.ip_network(block["cidr"])
        and not any(to in ipaddress.ip_network(left) for left in block.get("except", ()))
        for block in blocks
    )


def test_pods_reach_dns_redis_and_public_https_only(plain: list[Document]) -> None:
    policy = only(plain, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"], "what no rule allows is denied"

    def reach(address: str, port: int) -> bool:
        return any(allows(rule, address, port) for rule in policy["egress"])

    assert reach("10.1.2.3", 6379)
    assert reach("203.0.113.9", 443)
    assert reach("2001:db8::1", 443)
    assert reach("169.254.20.10", 53)
    for closed in ("10.1.2.3", "169.254.169.254", "192.168.1.1", "172.20.0.1", "100.64.0.1", "fd00::1", "fe80::1"):
        assert not reach(closed, 443), closed
        assert not reach(closed, 80), closed
    assert not reach("203.0.113.9", 80)
    assert not reach("203.0.113.9", 6379)
    ports = {one["port"] for rule in policy["egress"] for one in rule["ports"]}
    assert ports == {53, 443, 6379}


def test_nodes_can_be_drained_one_pod_at_a_time_even_without_redis(plain: list[Document]) -> None:
    budget = only(plain, "PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert only(plain, "HorizontalPodAutoscaler")["spec"]["minReplicas"] > budget["maxUnavailable"]


def test_autoscalers_scale_the_deployment_by_cpu_that_it_asks_for(plain: list[Document], full: list[Document]) -> None:
    for documents in (plain, full):
        spec = only(documents, "HorizontalPodAutoscaler")["spec"]
        assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gateway"}
        assert spec["metrics"][0]["resource"]["name"] == "cpu"
    assert "cpu" in container_of(plain)["resources"]["requests"]


def test_autoscaler_by_requests_reads_what_the_adapter_makes_of_a_metric(full: list[Document], tmp_path: Path) -> None:
    """Prometheus itself evaluates the adapter's query, once it is written out as the adapter does."""
    [*_, by_requests] = only(full, "HorizontalPodAutoscaler")["spec"]["metrics"]
    [rule] = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    metric = rule["seriesQuery"].partition("{")[0]
    assert f"`{metric}`" in (REPOSITORY / "docs" / "operations.md").read_text()
    name = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1"), metric)
    assert name == by_requests["pods"]["metric"]["name"]
    query = rule["metricsQuery"].replace("<<.Series>>", metric).replace("<<.GroupBy>>", "pod")
    query = query.replace("<<.LabelMatchers>>", 'namespace="gateway",pod=~"a|b"')
    series = 'gateway_http_requests_total{{namespace="gateway",pod="{}",route="{}"}}'
    made = {
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": series.format("a", "/health/live"), "values": "0+15x20"},
                    {"series": series.format("a", "/api/rooms"), "values": "0+30x20"},
                    {"series": series.format("b", "/api/rooms"), "values": "0+150x20"},
                ],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": "5m",
                        "exp_samples": [{"labels": '{pod="a"}', "value": 3}, {"labels": '{pod="b"}', "value": 10}],
                    }
                ],
            }
        ]
    }
    (tmp_path / "test.yml").write_text(json.dumps(made))
    words = [require("promtool"), "test", "rules", "test.yml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_monitor_sends_the_token_to_the_route_of_metrics(full: list[Document]) -> None:
    [endpoint] = only(full, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["path"] in {path for route in MONITORING for path in route.paths}
    assert endpoint["port"] == only(full, "Service")["spec"]["ports"][0]["name"]
    token = endpoint["authorization"]["credentials"]
    assert token["key"] in only(full, "Secret", token["name"])["data"]
    # The operator names the job after the Service.
    assert (
        f'job="{only(full, "Service")["metadata"]["name"]}"'
        in (REPOSITORY / "deploy" / "prometheus" / "alerts.yml").read_text()
    )
