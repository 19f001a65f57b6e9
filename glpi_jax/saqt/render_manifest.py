"""What a rendered folder depends on: settings checked, written down, and held to by later runs."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import features

from glpi_jax import __version__
from glpi_jax.core.config import flatten
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_json
from glpi_jax.data.sources.manifest import FORMAT, MANIFEST, read_manifest, shown
from glpi_jax.distortions import KADID_TYPES, LEVELS, find_distortion
from glpi_jax.saqt.render_photograph import FORMATS, RenderSettings, load_denoiser
from glpi_jax.saqt.rendered import RECORDS, SourcePhotograph

DENOISE = 15
# Of Pillow's codecs, those that the pixels or the files depend on.
_CODECS = ("libjpeg_turbo", "jpg_2000", "zlib", "zlib_ng", "webp")


def check_settings(settings: RenderSettings, *, labelled: bool) -> None:
    """Raise a GlpiError if no image can be rendered, or none labelled, with these settings."""
    for number in settings.types:
        name = find_distortion(number).name
        if labelled and number not in KADID_TYPES:
            raise GlpiError(
                f"distortion {name}: label tables hold KADID-10k's types alone; leave it out of"
                " --types, or leave out --labels"
            )
    for level in settings.levels:
        if level not in LEVELS:
            raise GlpiError(f"level {level} does not exist; levels are 1 to {LEVELS[-1]}")
    for what, values in (("types", settings.types), ("levels", settings.levels)):
        if not values or len(set(values)) != len(values):
            raise GlpiError(f"{what} {list(values)}: must name at least one, and none twice")
    if settings.format_name not in FORMATS:
        raise GlpiError(f"format {settings.format_name!r}: must be one of {', '.join(FORMATS)}")


def manifest_of(
    photographs: Sequence[SourcePhotograph], settings: RenderSettings
) -> dict[str, Any]:
    """Return all that the files depend on, as manifest.json has it."""
    denoiser = None
    if DENOISE in settings.types:
        denoiser = load_denoiser(settings.dncnn).identity
        if settings.dncnn is not None:
            import jax

            denoiser += f", by JAX {jax.__version__} on {jax.default_backend()}"
    names = "".join(f"{photograph.prefix} {photograph.path.name}\n" for photograph in photographs)
    versions = {name: version(name) for name in ("numpy", "pillow", "scipy")}
    codecs = {name: features.version(name) for name in _CODECS}
    return {
        "format": FORMAT,
        "settings": {
            "types": list(settings.types),
            "levels": list(settings.levels),
            "seed": settings.seed,
            "denoiser": denoiser,
            "image_format": {"name": settings.format_name, **FORMATS[settings.format_name]},
            "arrayrecord": settings.arrayrecord,
            "apply_orientation": settings.apply_orientation,
        },
        "photographs": {
            "count": len(photographs),
            "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        },
        "versions": {"glpi_jax": __version__, **versions, **codecs},
    }


def check_place(out: Path) -> None:
    """Raise a GlpiError if a folder holds something else than rendered images."""
    if (out / MANIFEST).exists() or not out.exists():
        return
    if not out.is_dir():
        raise GlpiError(f"{out}: not a folder")
    # Allowed is what a run leaves that is killed before it has written its manifest.
    others = {*out.iterdir()} - {out / RECORDS, *out.glob(".*.tmp")}
    if others:
        raise GlpiError(f"{out}: holds something else ({min(others).name}); give a new folder")


def claim(out: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest into a folder that has none; a GlpiError if it has another one."""
    if not (out / MANIFEST).exists():
        write_json(out / MANIFEST, manifest)
        return
    there, asked = flatten(read_manifest(out)), flatten(manifest)
    differences = [
        f"{key} is {shown(there.get(key))} there, {shown(asked.get(key))} now"
        for key in sorted(there.keys() | asked.keys())
        if there.get(key) != asked.get(key)
    ]
    if differences:
        raise GlpiError(
            f"{out}: was rendered otherwise: {'; '.join(differences)}; render as then, or give a"
            " new folder"
        )
