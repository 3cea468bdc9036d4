"""A fleet of network namespaces, built from a scenario file, with real traffic, a controller and agents."""

from cellwall.lab.attack import AttackReport, Attempt, attack
from cellwall.lab.fleet import LabState, WorkloadState, down, status, up
from cellwall.lab.parse import load_scenario, parse_scenario
from cellwall.lab.report import CallReport, TrafficReport, traffic_report
from cellwall.lab.scenario import Scenario, ScenarioError
from cellwall.lab.state import LabError, Progress, names

__all__ = [
    "AttackReport",
    "Attempt",
    "CallReport",
    "LabError",
    "LabState",
    "Progress",
    "Scenario",
    "ScenarioError",
    "TrafficReport",
    "WorkloadState",
    "attack",
    "down",
    "load_scenario",
    "names",
    "parse_scenario",
    "status",
    "traffic_report",
    "up",
]
