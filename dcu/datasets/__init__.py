"""Training and validation sets, built from clones of the public repositories that hold their images."""
