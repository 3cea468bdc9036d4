"""What the controller keeps: its state in SQL, and the flows in an engine of their own."""
