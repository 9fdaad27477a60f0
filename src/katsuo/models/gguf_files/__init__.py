"""GGUF files of Llama-type models, written and read with numpy alone: no PyTorch, no transformers."""
