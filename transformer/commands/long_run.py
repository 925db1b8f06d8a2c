"""Imported first by a command that may run for hours: prepares its threads for other programs."""

from transformer.machine import let_threads_sleep_soon

let_threads_sleep_soon()  # here, because it comes before torch is imported
