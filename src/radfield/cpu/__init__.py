"""How Python reaches the compiled C++: library loading (`library`), the SIMD vector type (`simd.h`), the thread pool
(`parallel.h`). No algorithm lives here."""
