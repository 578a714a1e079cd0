"""The programs: one file per method, the command line, and what shows their results. This file imports none of them."""
