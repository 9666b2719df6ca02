"""The figures on the cards, measured on real files."""
