"""Other firewalls' policies become Cellwall's documents, and the other way round; what cannot be carried is listed."""

from cellwall.translate.firewalls.documents import ImportedHosts
from cellwall.translate.firewalls.ipset import is_ipset
from cellwall.translate.firewalls.iptables import import_iptables
from cellwall.translate.firewalls.nftables import import_nft
from cellwall.translate.firewalls.order_free import Effect, Remark
from cellwall.translate.firewalls.rule import HostFacts, SavedRules
from cellwall.translate.kubernetes.documents import Imported, import_kubernetes, inventory
from cellwall.translate.kubernetes.export import Exported, export_kubernetes

__all__ = [
    "Effect",
    "Exported",
    "HostFacts",
    "Imported",
    "ImportedHosts",
    "Remark",
    "SavedRules",
    "export_kubernetes",
    "import_iptables",
    "import_kubernetes",
    "import_nft",
    "inventory",
    "is_ipset",
]
