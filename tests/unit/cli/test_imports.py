"""`policy import k8s` and `policy export k8s`: from files to files; what is refused leaves no file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
import yaml

from cellwall.cli.documents import policy_of, read_documents, read_fleet
from cellwall.cli.exits import Exit, guarded
from cellwall.cli.imports import add

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: http}]}]
"""
POD = """---
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {containers: [{ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.0.0.1}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "web.yaml").write_text(POLICY + POD, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> int:
    policy = typer.Typer()
    policy.callback()(lambda: None)
    add(policy)
    return guarded(lambda: policy(args=list(words), standalone_mode=False) or 0)


def test_documents_are_printed_and_notes_told_apart(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "k8s", "manifests") == Exit.OK
    out, err = capsys.readouterr()
    assert out.startswith("# shop.yaml\n# Kubernetes namespace `shop`")
    assert "the named port `http` is tcp/8080 at the pod that was read" in err
    assert [rule.id for rule in policy_of({"p.yaml": out}).rules] == [
        "shop.open-egress",
        "shop.open-ingress",
        "shop.web.ingress-1",
    ]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_programs_get_documents_notes_and_refusals(form: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "k8s", "manifests", "-o", form) == Exit.OK
    answer = yaml.safe_load(capsys.readouterr().out)
    assert (list(answer), list(answer["documents"])) == (["documents", "notes", "refusals"], ["shop.yaml"])


def test_documents_and_fleet_go_to_files_and_back_to_manifests(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "k8s", "manifests", "--to", "policy", "--fleet-to", "fleet.json") == Exit.OK
    assert capsys.readouterr().out == ""
    (workload,) = read_fleet(Path("fleet.json")).workloads
    assert (workload.name, dict(workload.labels)) == ("shop.web-1", {"app": "web", "namespace": "shop"})
    assert len(policy_of(read_documents([Path("policy")])).rules) == 3
    assert run("export", "k8s", "policy", "--fleet", "fleet.json", "--to", "back") == Exit.OK
    names = [one["metadata"]["name"] for one in yaml.safe_load_all((here / "back" / "shop.yaml").read_text("utf-8"))]
    assert names == ["default-deny", "shop.open-egress", "shop.open-ingress", "shop.web.ingress-1"]
    assert run("import", "k8s", "back") == Exit.OK


def test_what_is_refused_leaves_no_file_and_all_of_it_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = "---\nkind: CiliumNetworkPolicy\napiVersion: cilium.io/v2\n"
    (here / "manifests" / "web.yaml").write_text(POLICY.replace("podSelector: {m", "podSelecter: {m") + other, "utf-8")
    assert run("import", "k8s", "manifests", "--to", "policy", "--fleet-to", "fleet.json") == Exit.DOCUMENT
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [
        "cellwall: manifests/web.yaml:6:3: NetworkPolicy `shop/web`: unknown key `podSelecter`; "
        "did you mean `podSelector`?",
        "cellwall: manifests/web.yaml:9:1: `CiliumNetworkPolicy` `` of `cilium.io/v2` is not read; "
        "wanted `NetworkPolicy` of `networking.k8s.io/v1`",
        "cellwall: 2 refused, so nothing was written",
    ]
    assert not Path("policy").exists() and not Path("fleet.json").exists()
    assert run("import", "k8s", "manifests", "-o", "json") == Exit.DOCUMENT
    assert len(json.loads(capsys.readouterr().out)["refusals"]) == 2


def test_files_without_anything_of_a_cluster_are_a_mistake(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "manifests" / "web.yaml").write_text("kind: Service\n", "utf-8")
    assert run("import", "k8s", "manifests") == Exit.DOCUMENT
    assert "there is no NetworkPolicy, no pod and no namespace in these files" in capsys.readouterr().err


def test_a_rule_that_kubernetes_cannot_say_is_refused_with_its_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "p.yaml").write_text("rules:\n- {id: r, deny: any, from: any, to: any}\n", "utf-8")
    assert run("export", "k8s", "p.yaml") == Exit.DOCUMENT
    assert "cellwall: p.yaml:2:3: rule `r`: a NetworkPolicy cannot say `deny`" in capsys.readouterr().err
