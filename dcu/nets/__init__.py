"""Neural networks: nn.Modules only, importing nothing but torch."""
