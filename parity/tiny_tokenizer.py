"""A small tokenizer in the files of CLIP's, learned from a few captions."""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

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
