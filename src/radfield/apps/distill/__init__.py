"""`radfield distill`: the program, and the students it trains."""
