import pytest

from cellwall.classify.knowledge import ENVIRONMENTS, PORTS, PROCESSES, ROLES, TIERS
from cellwall.classify.names import read_host_name, read_unit_name


@pytest.mark.parametrize(
    ("name", "environments", "roles", "rest"),
    [
        ("shop-web-1", (), ("web",), ("shop",)),
        ("db-dev", ("dev",), ("db",), ()),
        ("db01.prod.example.net", ("prod",), ("db",), ("example", "net")),
        ("FRA_CRM_APP02", (), (), ("fra", "crm", "app")),
        ("k8s-node-3", (), (), ("k8s",)),
        ("web-proxy", (), ("web", "lb"), ()),
        ("42", (), (), ()),
        ("nginx", (), (), ()),
    ],
)
def test_a_host_name_is_taken_apart(
    name: str, environments: tuple[str, ...], roles: tuple[str, ...], rest: tuple[str, ...]
) -> None:
    read = read_host_name(name)
    assert (read.environments, read.roles, read.rest) == (environments, roles, rest)


@pytest.mark.parametrize(
    ("name", "roles", "rest"),
    [
        ("shop-api.service", ("api",), ("shop",)),
        ("shop-api@2.service", ("api",), ("shop",)),
        ("nginx.service", (), ()),
        ("postgresql.service", (), ()),
        ("session-1.scope", (), ()),
        ("crm", (), ()),
    ],
)
def test_only_the_names_of_services_say_something(name: str, roles: tuple[str, ...], rest: tuple[str, ...]) -> None:
    read = read_unit_name(name)
    assert (read.roles, read.rest) == (roles, rest)


def test_the_tables_of_knowledge_fit_together() -> None:
    roles = set(ROLES.values())
    assert set(PROCESSES.values()) <= roles
    assert set(PORTS.values()) <= roles
    assert set(TIERS) <= roles
    assert all(ENVIRONMENTS.get(value) == value for value in ENVIRONMENTS.values())
    assert all(ROLES.get(value) == value for value in ("web", "api", "db", "dns", "monitoring", "bastion", "storage"))
