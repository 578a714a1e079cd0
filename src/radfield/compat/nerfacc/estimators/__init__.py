"""Where along rays to sample."""
