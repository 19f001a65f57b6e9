"""`glpi export`."""

import argparse
from pathlib import Path

from glpi_jax.cli.common import EXIT_OK, Commands, add_command, say


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    export = add_command(
        commands, "export", "Write a trained model as one file that scores crops with JAX alone."
    )
    export.add_argument(
        "source",
        metavar="SOURCE",
        help="a workdir, a hub folder, a checkpoint (.pth, .pt, .safetensors) or hf://owner/name",
    )
    export.add_argument("out", type=Path, metavar="FILE.stablehlo", help="FILE.stablehlo.json too")
    export.add_argument("--force", action="store_true", help="replace an existing file")
    export.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from glpi_jax.export import export_model

    description = export_model(args.source, args.out, force=args.force)
    shape, size = description["input"]["shape"], description["bytes"] / 1e6
    say(f"{size:.1f} MB, takes uint8 crops ({', '.join(map(str, shape))})")
    print(args.out)
    return EXIT_OK
