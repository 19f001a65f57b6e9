"""GLPI in JAX: no-reference image quality assessment with global-local progressive integration."""
