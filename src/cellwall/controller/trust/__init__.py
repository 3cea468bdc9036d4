"""Who may speak as a workload: authority, enrolment, tokens, claims of what is outside, and letters of the fleet."""
