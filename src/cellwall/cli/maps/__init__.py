"""Who talks to whom, drawn for terminals, documents and browsers."""
