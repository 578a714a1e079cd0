"""Networks: the small MLP, and encoding and MLP fused."""
