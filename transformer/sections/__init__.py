"""The sections of a configuration: the keys with their types, ranges and defaults."""
