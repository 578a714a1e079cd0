"""How Python reaches CUDA: NVRTC, kernel cache, launch, device headers. No algorithm lives here."""
