"""
A causal language model of transformers, in this process.

Importing it comes before importing torch, and tells OpenMP how often a thread that waits looks again before it sleeps.
OpenMP's own default keeps waiting threads busy: beside one other busy process on two cores, a generation that takes 13
seconds is not done after 150; with this it takes 39, and 13 where the cores are free.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")
