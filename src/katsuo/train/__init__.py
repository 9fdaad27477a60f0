"""Fitting a model: a task generator on training pairs, a target model on a run's examples or on its raw passages."""

import katsuo.engines.hf  # noqa: F401 - before torch: see there
