"""Who may reach whom in one fleet, as bit rows, and the words in which a person reads sets of its ends."""
