"""`python -m glpi_jax` is the `glpi` command."""

import sys

from glpi_jax.cli import main

sys.exit(main())
