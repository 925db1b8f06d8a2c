"""The commands of the package: each module has a `main(argv)`."""

from transformer.cpus import let_threads_sleep

let_threads_sleep()  # here, because the commands import torch
