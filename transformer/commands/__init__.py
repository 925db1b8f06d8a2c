"""The commands of the package: each module has a `main(argv)`."""
