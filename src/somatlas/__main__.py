"""`python -m somatlas` is the command."""

from somatlas.cli.main import main

if __name__ == "__main__":
    main()
