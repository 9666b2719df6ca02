"""Latency, cost and accuracy of pipelines from a file to a label, beside conventional codecs."""
