"""
A GGUF model by llama.cpp, in this process, without PyTorch.

Importing it comes before importing the wheel, and tells OpenMP how often a thread that waits looks again before it
sleeps, as for the engine `hf`.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")
