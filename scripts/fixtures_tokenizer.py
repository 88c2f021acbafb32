"""A small tokenizer of Gemma's kind, trained here: byte fallback, runs of newlines and spaces, turn markers.

    0..5     <pad> <eos> <bos> <unk> <mask> [multimodal]
    6..9     <unused0> .. <unused3>
    10 11    <start_of_turn> <end_of_turn>
    12..17   runs of 1..6 newlines
    18..24   runs of 2..8 spaces, written as U+2581
    25..28   markup tags
    29..284  <0x00> .. <0xFF>
    285..    learned pieces, the likeliest merge first, then single characters
    .. 511   runs of 1 and 2 tabs, <start_of_image>, <start_of_audio>
    512..527 vision and audio markers and <unused4> ..: ids without a row in the per-layer table
"""
from pathlib import Path
import json
from collections import Counter

SPACE = "\u2581"
TEXT_PIECES = 512
ALL_PIECES = 528
TAGS = ["<b>", "</b>", "<code>", "</code>"]
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
           "<start_of_audio>", "<end_of_image>", "<image_soft_token>", "<end_of_audio>", "<audio_soft_token>"]

CORPUS = """
Small models are useful when they answer on the machine that you have, without a network and without waiting.
This tokenizer learns a few hundred pieces from these lines; that is enough to test how text becomes numbers.
When the harbour freezes over, the ferry stays at its pier, and the islanders read, mend nets and play cards.
A letter is read from left to right, but a word is often known from its shape before the last letter is seen.
What is the capital of the country? How many legs has a spider? Who wrote this sentence, and who reads it now?
Write a short story about a lighthouse keeper who counts the ships. Write it in the style of an old sailor.
The user asks and the model answers; the model never asks the user. Then the user asks again, and so it goes on.
Take 250 grams of flour, 3 eggs, half a litre of milk and 1 pinch of salt. Wait for 30 minutes before you bake.
for line in text.splitlines(): print(len(line), line) if line else print()
let total: u32 = values.iter().map(|value| value * 2).sum();
Große Bäume werfen lange Schatten. Die Möwen über dem Hafen rufen laut, wenn die Fischer zurückkehren.
L'été dernier, nous avons marché jusqu'à la côte. Où étiez-vous ? Là-bas, près du phare.
El faro está lejos, pero la luz llega hasta la playa. ¿Mañana también habrá niebla?
Корабль вошёл в гавань утром. Маяк ещё горел.
港の灯台は古い。船は朝に着いた。海边有一座灯塔。
"""

# Gemma's own template, the one that the program falls back on.
CHAT_TEMPLATE = (Path(__file__).parent.parent / "src/session/gemma.jinja").read_text(encoding="utf-8")


def learn(count):
    """Merges learned from the corpus, then every character of it: `count` pieces."""
    words = Counter()
    for line in CORPUS.split("\n"):
        for i, word in enumerate(line.split(" ")):
            words[(SPACE if i else "") + word] += 1
    characters = sorted({c for word in words for c in word})
    splits = {word: list(word) for word in words}
    merged = []
    while len(merged) + len(characters) < count:
        pairs = Counter()
        for word, times in words.items():
            for pair in zip(splits[word], splits[word][1:]):
                pairs[pair] += times
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if left + right not in merged:
            merged.append(left + right)
        for parts in splits.values():
            i = 0
            while i + 1 < len(parts):
                if (parts[i], parts[i + 1]) == (left, right):
                    parts[i:i + 2] = [left + right]
                i += 1
    return merged + characters


def pieces():
    """All pieces by id, and the added ones among them."""
    head = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]", *(f"<unused{i}>" for i in range(4)),
            "<start_of_turn>", "<end_of_turn>", *("\n" * n for n in range(1, 7)), *(SPACE * n for n in range(2, 9)), *TAGS]
    tail = ["\t", "\t\t", "<start_of_image>", "<start_of_audio>"]
    beyond = ["<end_of_image>", "<image_soft_token>", *(f"<unused{i}>" for i in range(4, 10)),
              "<end_of_audio>", "<audio_soft_token>", *(f"<unused{i}>" for i in range(10, 16))]
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    learned = learn(TEXT_PIECES - len(head) - len(octets) - len(tail))
    every = [*head, *octets, *learned, *tail, *beyond]
    assert len(every) == len(set(every)) == ALL_PIECES and every[TEXT_PIECES] == beyond[0]
    return every, {*head, *tail, *beyond}


def merges(vocab):
    """Every pair of pieces that makes a third. Inside runs the longest left part goes first, as Gemma's do."""
    found = []
    for text, index in vocab.items():
        run = len(set(text)) == 1
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in vocab and right in vocab:
                rank = (0, -len(left), -len(right)) if run and text[0] == SPACE else (1, index, vocab[left], vocab[right])
                found.append((rank, [left, right]))
    return [pair for _, pair in sorted(found)]


def tokenizer_json():
    every, added = pieces()
    vocab = {piece: i for i, piece in enumerate(every)}
    bos, a, b = ({"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                 {"Sequence": {"id": "B", "type_id": 1}})
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": piece, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": piece in SPECIAL} for piece, i in vocab.items() if piece in added],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": [bos, a], "pair": [bos, a, bos, b],
                           "special_tokens": {"<bos>": {"id": "<bos>", "ids": [vocab["<bos>"]], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": merges(vocab)},
    }


def write(folder):
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    config = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
              "unk_token": "<unk>", "mask_token": "<mask>", "clean_up_tokenization_spaces": False, "padding_side": "left",
              "spaces_between_special_tokens": False, "tokenizer_class": "GemmaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
