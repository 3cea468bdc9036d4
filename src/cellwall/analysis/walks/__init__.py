"""What an attacker reaches in hops, which rules cut it, and claims about it with a proof or a shortest path."""
