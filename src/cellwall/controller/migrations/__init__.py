"""The history of the state's tables: each file is one step, run in order when a store is opened."""
