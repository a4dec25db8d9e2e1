"""A GGUF file in llama.cpp, by the xllamacpp package: its tokens and its next-token log-probabilities."""
import json
import urllib.request

import numpy as np
import xllamacpp

# What is sampled, so that there is an answer: none comes with the end or with half a character. The bias acts after the
# probabilities are taken.
ORDINARY = 300


class LlamaCpp:
    def __init__(self, path, context=512):
        parameters = xllamacpp.CommonParams()
        parameters.model.path = path
        parameters.n_ctx = context
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        self.server = xllamacpp.Server(parameters)

    def tokens(self, text):
        body = json.dumps({"content": text, "add_special": True}).encode()
        request = urllib.request.Request(self.server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["tokens"]

    def log_probabilities(self, ids, vocabulary):
        """Of what follows each prefix of `ids`: [len(ids), vocabulary]."""
        rows = np.full((len(ids), vocabulary), np.nan)
        for end in range(1, len(ids) + 1):
            answer = self.server.handle_completions({"prompt": [int(i) for i in ids[:end]], "n_predict": 1, "n_probs": vocabulary, "temperature": 0, "logit_bias": [[ORDINARY, 1000.0]]})
            for top in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
                rows[end - 1, top["id"]] = top["logprob"]
        return rows


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
