"""The commands of the package: each module has a `main(argv)`."""

from transformer.machine import do_without_temporary_files, let_threads_sleep

# Here, because both come before torch is imported, and the commands import it.
do_without_temporary_files()
let_threads_sleep()
