"""The engine `vllm`: vLLM's server in a process of its own, spoken to over a private socket."""
