"""Datasets: specs, plans, the regions and patches that they describe."""
