"""Running policies in environments: whole episodes, with their sums, without side effects."""
