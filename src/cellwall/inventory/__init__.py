"""Workloads, their addresses and labels: the fleet at one moment."""

from cellwall.inventory.fleet import Fleet, InventoryError, Listener, Workload, check_name

__all__ = ["Fleet", "InventoryError", "Listener", "Workload", "check_name"]
