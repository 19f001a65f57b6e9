"""`python -m glpi_jax` is the `glpi` command."""

import sys

from glpi_jax.cli.main import main

if __name__ == "__main__":  # rendering processes import this file too
    sys.exit(main())
