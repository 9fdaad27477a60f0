"""
A small real server of the part of the OpenAI protocol that gives prompt log-probabilities, around transformers.

`POST /v1/completions` with `echo` and `logprobs`, text or tokens, as the protocol and vLLM's manual describe it, one
request at a time. Below `/vllm` it also has that server's `/tokenize` and `/tokenizer_info`, below other names not.
It is no server for use: it exists because neither server that the suite can install echoes.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Model:
    """A model that reads texts."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
        self.context = self._model.config.max_position_embeddings

    def encode(self, text: str, *, special: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special).input_ids)

    def echo(self, tokens: list[int]) -> tuple[list[float | None], int]:
        """Give the log-probability of every token after the first, and the likeliest next token."""
        with self._torch.inference_mode():
            logs = self._model(self._torch.tensor([tokens])).logits[0].log_softmax(-1)
        steps = range(1, len(tokens))
        return [None, *(float(logs[step - 1, tokens[step]]) for step in steps)], int(logs[-1].argmax())


class RefusedError(Exception):
    """The request is one that such a server refuses."""


class Handler(BaseHTTPRequestHandler):
    model: Model
    lock = threading.Lock()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _, owner, path = self.path.split("/", 2)
        if path == "v1/models":
            one = {"id": "tiny.gguf", "object": "model", "owned_by": owner, "max_model_len": self.model.context}
            self._send(200, {"object": "list", "data": [one]})
        elif path == "tokenizer_info" and owner == "vllm":
            self._send(200, {"eos_token": self.model.tokenizer.eos_token})
        else:
            self._send(404, {"error": {"message": "not found"}})

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, owner, path = self.path.split("/", 2)
        does = {"v1/completions": self._complete}
        if owner == "vllm":
            does["tokenize"] = self._tokenize
        try:
            with self.lock:
                self._send(200, does[path](told))
        except KeyError:
            self._send(404, {"error": {"message": "not found"}})
        except RefusedError as error:
            self._send(400, {"error": {"message": str(error)}})

    def _tokenize(self, told: dict) -> dict:
        if "messages" not in told:
            tokens = self.model.encode(told["prompt"], special=told.get("add_special_tokens", True))
        else:
            names = ("add_generation_prompt", "continue_final_message")
            how = {name: told.get(name, False) for name in names}
            text = self.model.tokenizer.apply_chat_template(told["messages"], tokenize=False, **how)
            tokens = self.model.encode(text, special=False)
        return {"count": len(tokens), "max_model_len": self.model.context, "tokens": tokens}

    def _complete(self, told: dict) -> dict:
        asked = told["prompt"]
        tokens = self.model.encode(asked, special=True) if isinstance(asked, str) else list(asked)
        if len(tokens) + told["max_tokens"] > self.model.context:
            raise RefusedError(f"maximum context length is {self.model.context} tokens")
        values, following = self.model.echo(tokens)
        words = [self.model.tokenizer.decode([token]) for token in [*tokens, following]]
        logprobs = {"tokens": words, "token_logprobs": [*values, -1.0], "top_logprobs": None}
        if not told.get("echo"):
            logprobs = None
            words = words[-1:]
        choice = {"index": 0, "text": "".join(words), "finish_reason": "length", "logprobs": logprobs}
        usage = {"prompt_tokens": len(tokens), "completion_tokens": 1, "total_tokens": len(tokens) + 1}
        return {"object": "text_completion", "model": "tiny", "choices": [choice], "usage": usage}

    def _send(self, status: int, body: dict) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        """Print nothing."""


def main(folder: str) -> None:
    Handler.model = Model(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"address=http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    parent = os.getppid()
    while os.getppid() == parent:  # nobody else ends it when the tests are killed
        time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1])
