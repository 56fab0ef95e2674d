"""`python -m mlserver` is the `mlserver` command."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="mlserver")
