"""From documents and labelled rows to a verdict: stages, each a process of its own, taken up where they stopped."""
