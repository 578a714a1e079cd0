"""The Gaussian scene: its parameters, its files, how it grows."""
