"""The programs of the command line: each module has a `main(argv)`."""
