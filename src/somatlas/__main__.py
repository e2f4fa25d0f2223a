"""`python -m somatlas` is the command."""

from somatlas.cli import main

if __name__ == "__main__":
    main()
