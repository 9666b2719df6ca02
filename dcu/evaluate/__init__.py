"""The metrics on the cards, measured on real files."""
