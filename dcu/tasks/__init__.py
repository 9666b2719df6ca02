"""Bytes to latent to result."""
