"""The firewalls of hosts, iptables and nftables, where the first match wins, as documents without an order."""
