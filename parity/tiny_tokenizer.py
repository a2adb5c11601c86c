"""Small tokenizers of CLIP's and of T5's kind, learned from a few captions."""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import T5Tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder, captions) -> dict[str, int]:
    """Write vocab.json and merges.txt in a folder; return the vocabulary, END last."""
    learned = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=620, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learned.train_from_iterator([c.lower() for c in captions * 3], trainer)
    vocab, merges = (json.loads(learned.to_str())["model"][name] for name in ("vocab", "merges"))
    for token in (*(f"{letter}</w>" for letter in alphabet), START, END):
        vocab.setdefault(token, len(vocab))
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(m) for m in merges), encoding="utf-8"
    )
    return vocab


def learn_t5(captions, vocab_size: int) -> T5Tokenizer:
    """Return a tokenizer of T5 with at most `vocab_size` pieces."""
    learned = Tokenizer(models.Unigram())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    learned.train_from_iterator([*captions, *"abcdefghijklmnopqrstuvwxyz"], trainer)
    vocabulary = sorted(learned.get_vocab(), key=learned.get_vocab().__getitem__)
    return T5Tokenizer(vocab=[(piece, -0.1 * i) for i, piece in enumerate(vocabulary)])
