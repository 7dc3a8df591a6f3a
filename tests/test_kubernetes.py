"""``config/kubernetes``: what the manifest says of the proxy is what proxy, image and page say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import config
from proxy.config.values import Address
from tests.test_documents import blocks
from tests.test_house_rules import ROOT

MANIFEST = ROOT / "config" / "kubernetes" / "pleo-proxy.yaml"
OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PAGE = ROOT / "docs" / "how-to" / "kubernetes.md"


def the(kind: str, name: str = "pleo-proxy") -> dict[str, Any]:
    """The object of a kind and a name."""
    (found,) = [each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


POD = the("StatefulSet")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
VOLUMES = {volume["name"]: volume for volume in POD["volumes"]}
MOUNTS = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
ENVIRON = {each["name"]: each.get("value", "x") for each in CONTAINER["env"]}
CREDENTIALS = [item["path"] for item in VOLUMES["credentials"]["secret"]["items"]]


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    """The configuration as the proxy in the pod reads it, with something in each credential."""
    (tmp_path / "config.toml").write_text(the("ConfigMap")["data"]["config.toml"])
    for name in CREDENTIALS:
        (tmp_path / name).write_text("k1:AAAA")
    image = dict(re.findall(r"(PLEO_PROXY__\w+)=(\S+)", DOCKERFILE))
    environ = {**image, **ENVIRON, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    return config.load(tmp_path / "config.toml", environ, check_references=True)


def test_the_configuration_is_valid_and_finds_its_secrets(settings: config.Settings) -> None:
    """The proxy in the pod starts with it, and its credentials are those that are mounted."""
    named = re.findall(r'credential = "([^"]+)"', the("ConfigMap")["data"]["config.toml"])
    assert sorted(named) == sorted(CREDENTIALS)
    assert ENVIRON["CREDENTIALS_DIRECTORY"] == MOUNTS["credentials"]
    assert f"{MOUNTS['config']}/config.toml" == "/etc/pleo-proxy/config.toml", "where it is looked for"
    # What must outlive a pod is on the volume that does, and not at its top.
    (claim,) = the("StatefulSet")["spec"]["volumeClaimTemplates"]
    assert settings.store.state_dir.parent == Path(MOUNTS[claim["metadata"]["name"]])
    assert settings.store.url.path is None, "several instances need PostgreSQL"
    assert the("Service")["metadata"]["name"] in settings.listen.hosts


def test_a_secret_has_all_that_is_taken_from_it() -> None:
    """The page's command puts each file into the secret that the pod takes."""
    (made,) = (b.text for b in blocks(PAGE) if "create secret" in b.text)
    files = re.findall(r"--from-file=(\S+)", made)
    (password,) = [each["valueFrom"]["secretKeyRef"] for each in CONTAINER["env"] if "valueFrom" in each]
    assert sorted(files) == sorted([*CREDENTIALS, password["key"]])
    assert {password["name"], VOLUMES["credentials"]["secret"]["secretName"]} == {"pleo-proxy"}


def test_ports_are_those_of_the_image_and_everything_leads_to_them(settings: config.Settings) -> None:
    """Services, probes, the ingress and the network policy name ports that listeners have."""
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    (callers,) = settings.listen.proxy
    assert isinstance(callers.address, Address)
    assert (callers.address.port, settings.listen.admin.port) == (ports["callers"], ports["operators"])
    for each in OBJECTS:
        if each["kind"] == "Service":
            assert each["spec"]["selector"] == the("StatefulSet")["spec"]["selector"]["matchLabels"]
            for port in each["spec"]["ports"]:
                assert (port["targetPort"], port["port"]) == (port["name"], ports[port["name"]])
    opened = [port["port"] for rule in the("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]]
    assert opened == [ports["callers"], ports["operators"]]
    assert the("StatefulSet")["spec"]["serviceName"] in {e["metadata"]["name"] for e in OBJECTS}
    labels = the("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels


def test_probes_ask_what_the_operators_listener_answers() -> None:
    """Liveness asks whether it answers, readiness whether it serves, both on the operators' port."""
    asked = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in asked.values()} == {"operators"}
    assert [probe["path"] for probe in asked.values()] == ["/healthz", "/healthz", "/readyz"]


def test_a_stop_has_time_to_drain(settings: config.Settings) -> None:
    """The grace period is longer than the wait before it, requests and a refresh together."""
    wait = float(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = wait + settings.limits.drain_s + settings.refresh.timeout_s
    assert POD["terminationGracePeriodSeconds"] > needed


def test_the_pod_runs_as_the_images_user_and_writes_to_its_volumes_only() -> None:
    """The user is the image's, the root file system is read-only, and what is written has a place."""
    uid = int(re.findall(r"--uid (\d+)", DOCKERFILE)[0])
    assert (POD["securityContext"]["runAsUser"], POD["securityContext"]["fsGroup"]) == (uid, uid)
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    assert MOUNTS["tmp"] == "/tmp"
    claims = the("StatefulSet")["spec"]["volumeClaimTemplates"]
    assert set(MOUNTS) == {*VOLUMES, *(each["metadata"]["name"] for each in claims)}


def test_the_ingress_shows_authorisers_theirs_and_nothing_else(settings: config.Settings) -> None:
    """Outside are the paths of a consent, of its style and of explanations, by the settings' name."""
    (rule,) = the("Ingress", "pleo-proxy-authorisers")["spec"]["rules"]
    assert settings.listen.public_url == f"https://{rule['host']}"
    assert {path["path"] for path in rule["http"]["paths"]} == {
        "/connect/",
        "/oauth/",
        "/problems/",
        "/style.css",
    }
    backends = [path["backend"]["service"] for path in rule["http"]["paths"]]
    assert backends == [{"name": "pleo-proxy-operators", "port": {"name": "operators"}}] * 4


def test_no_secret_stands_in_the_manifest() -> None:
    """There is no object of this kind, and the page says that it was not run on a cluster."""
    assert [each["kind"] for each in OBJECTS if each["kind"] == "Secret"] == []
    assert "has not been run on a cluster" in PAGE.read_text()
