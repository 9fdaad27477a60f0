"""Parts of a model that is trained, computed in fewer passes over memory."""
