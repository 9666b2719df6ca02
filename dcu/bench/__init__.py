"""What it costs and what it gives, against what people run today."""
