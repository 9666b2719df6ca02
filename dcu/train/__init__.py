"""Training: one loop, then one file per thing that is trained."""
