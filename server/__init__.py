"""The coordinator: it sees sums, never images."""
