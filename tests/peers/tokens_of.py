"""The tokens of a directory's tokenizer by other people's programs."""
import json
import os

import slow_llama_tokenizer


def peer(directory):
    """Its name, and a function from a text and whether special tokens are added to ids."""
    if not os.path.exists(os.path.join(directory, "tokenizer.json")):
        return "slow LlamaTokenizer", slow_llama_tokenizer.load(os.path.join(directory, "tokenizer.model"))
    from tokenizers import AddedToken, Tokenizer

    t = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    config = os.path.join(directory, "tokenizer_config.json")
    if os.path.exists(config):  # whose tokens transformers adds
        with open(config, encoding="utf-8") as f:
            added = json.load(f).get("added_tokens_decoder", {})
        for _, token in sorted(added.items(), key=lambda item: int(item[0])):
            t.add_tokens([AddedToken(**{key: token[key] for key in ("content", "single_word", "lstrip", "rstrip", "normalized", "special")})])
    return "tokenizers", lambda text, special: t.encode(text, add_special_tokens=special).ids
