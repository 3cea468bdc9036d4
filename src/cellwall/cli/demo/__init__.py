"""The demonstration: a small fleet is seen, labelled, walled and attacked, and each promise is checked."""
