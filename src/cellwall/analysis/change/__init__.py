"""Two policies side by side: what passes in one and not in the other, in words and in flows that were seen."""
