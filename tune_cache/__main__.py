"""``python -m tune_cache``: the same as ``tune``, whose name torchtune uses as well."""

from tune_cache.cli import main

if __name__ == "__main__":
    main()
