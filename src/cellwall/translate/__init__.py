"""Other firewalls' policies become Cellwall's documents, and the other way round; what cannot be carried is listed."""
