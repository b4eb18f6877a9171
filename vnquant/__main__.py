"""``python -m vnquant``: the same as the ``vnquant`` command."""

from vnquant.cli import main

if __name__ == "__main__":
    main()
