"""Tokenizers with the pipelines that the families of lwq ship (normalizer, pattern, kind of model, added tokens), trained on the
bundled text, so that no real file is needed. For family_tokens_test.py."""
import json
import os

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
O200K = "|".join([rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?", rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                  r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
TEKKEN = "|".join([rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+", rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*", r"\p{N}",
                   r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT = [AddedToken(t, special=True, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
SIZE = 3000


def split(pattern, behavior="isolated"):
    return pre_tokenizers.Split(Regex(pattern), behavior)


def byte_level(text, *steps, normalizer=None, ignore_merges=False, use_regex=False, added=()):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(text, trainers.BpeTrainer(vocab_size=SIZE, special_tokens=[], show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_tokens(list(added) or CHAT)
    return t


def with_bos(t, token):
    t.add_tokens([AddedToken(token, special=True, normalized=False)])
    t.post_processor = processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, t.token_to_id(token))])
    return t


def byte_fallback(text, normalizer, pre_tokenizer, added, prefix="\u2581"):
    """Pieces of words, then the tokens <0x00> to <0xFF> put in, which no trainer makes."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(text, trainers.BpeTrainer(vocab_size=SIZE, special_tokens=[], show_progress=False))
    data = json.loads(t.to_str())
    first = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    words = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    vocabulary = {token: i for i, token in enumerate(first + words)}
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in data["model"]["merges"]]
    t = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizer
    if pre_tokenizer:
        t.pre_tokenizer = pre_tokenizer
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    t.add_tokens([AddedToken(token, special=True, normalized=False) for token in first[:3]])
    t.add_tokens(added)
    return with_bos(t, "<s>")


def unigram(text, byte_fallback):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(text, trainers.UnigramTrainer(vocab_size=SIZE, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False))
    if not byte_fallback:
        return with_bos(t, "<s>")
    data = json.loads(t.to_str())
    data["model"]["vocab"] += [[f"<0x{b:02X}>", -20.0] for b in range(256)]
    data["model"]["byte_fallback"] = True
    return with_bos(Tokenizer.from_str(json.dumps(data)), "<s>")


def all_of(text):
    """Name and tokenizer of each pipeline, made when asked for."""
    spaces = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    phi3 = [AddedToken(t, special=True, normalized=False, rstrip=True) for t in ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>")]
    gemma = [AddedToken(t, special=False, normalized=False) for t in ("\n", "\n\n", "\n\n\n", "\t", "\u2581\u2581", "\u2581\u2581\u2581", "<table>", "[@BOS@]")]
    yield "qwen2", byte_level(text, split(QWEN2), normalizer=normalizers.NFC())
    yield "qwen3", byte_level(text, split(QWEN2), normalizer=normalizers.NFC(), added=[*CHAT, AddedToken("<think>", special=False, normalized=False)])
    yield "llama3", with_bos(byte_level(text, split(LLAMA3), ignore_merges=True), "<|begin_of_text|>")
    yield "phi4 (o200k)", byte_level(text, split(O200K), added=[AddedToken("<|end|>", special=True, normalized=False, lstrip=True, rstrip=True)])
    yield "mistral (tekken)", with_bos(byte_level(text, split(TEKKEN), ignore_merges=True), "<s>")
    yield "smollm", byte_level(text, pre_tokenizers.Digits(individual_digits=True), use_regex=True)
    yield "deepseek's llama and qwen", byte_level(text, split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK))
    yield "llama2", byte_fallback(text, spaces, None, [])
    yield "phi3", byte_fallback(text, spaces, None, phi3)
    yield "mistral", byte_fallback(text, None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), [])
    yield "gemma", byte_fallback(text, normalizers.Replace(" ", "\u2581"), pre_tokenizers.Split(" ", "merged_with_previous"), gemma, prefix="")
    yield "unigram", unigram(text, False)
    yield "unigram with bytes", unigram(text, True)


def save(tokenizer, directory):
    os.makedirs(directory)
    tokenizer.save(os.path.join(directory, "tokenizer.json"))
