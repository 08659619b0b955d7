"""The inference engine: predictors, tiles read from scans, and the sweep that blends them."""
