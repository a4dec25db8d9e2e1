"""What transformers' slow LlamaTokenizer (legacy) makes of a text with nothing but tokenizer.model: the
control pieces <unk>, <s> and </s> are cut out of the text wherever they stand, and sentencepiece
encodes each part between them."""
import re

import sentencepiece


def load(path):
    """A function from a text to its ids, begin-of-sequence first where `special` is true."""
    model = sentencepiece.SentencePieceProcessor(model_file=path)
    control = {model.id_to_piece(i): i for i in (model.unk_id(), model.bos_id(), model.eos_id())}
    cut = re.compile("(" + "|".join(map(re.escape, control)) + ")")

    def encode(text, special=True):
        ids = [model.bos_id()] if special else []
        for part in cut.split(text):
            ids += [control[part]] if part in control else model.encode(part) if part else []
        return ids

    return encode
