"""What is questionable in a valid policy, how its documents should read, and shorter ones that mean the same."""
