"""The tokenizer: Gemma's layout of ids, in small, with pieces learned from our own text.

    0..5      <pad> <eos> <bos> <unk> <mask> [multimodal]
    6..15     <unused0..7>, <start_of_turn>, <end_of_turn>
    16..50    runs of newlines and of spaces, a few HTML tags
    51..306   <0x00> .. <0xFF>
    307..     learned pieces in the order of their merges, then single characters
    near the end of the text vocabulary: runs of tabs, <start_of_image>, <start_of_audio>
    then ids that belong to pictures, then ids that belong to sound
"""
import json

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

import config

SPACE = "\u2581"
HTML = ["<table>", "</table>", "<h1>", "</h1>", "<b>", "</b>", "<code>", "</code>"]
ASCII = [chr(c) for c in range(33, 127)]


def learn(lines, count):
    """`count` pieces: merges in their order, then characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{SPACE}?[A-Za-z]+|{SPACE}?[^A-Za-z]"), "isolated")
    alphabet = [SPACE, *ASCII]
    trainer = trainers.BpeTrainer(vocab_size=count, initial_alphabet=alphabet, limit_alphabet=len(alphabet),
                                  show_progress=False, min_frequency=1)
    tokenizer.train_from_iterator(lines, trainer)
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merged = [piece for piece, _ in pieces if len(piece) > 1]
    # Fewer words than room: the rest of the ids stay unused.
    return merged[:count - len(alphabet)] + alphabet


def layout(lines):
    """(text, kind) of every id; kinds: special, user (matched before merging), byte, normal."""
    special = lambda names: [(name, "special") for name in names]  # noqa: E731
    user = lambda names: [(name, "user") for name in names]  # noqa: E731
    head = special(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]"])
    head += special([f"<unused{i}>" for i in range(8)] + ["<start_of_turn>", "<end_of_turn>"])
    head += user(["\n" * n for n in range(1, 13)] + [SPACE * n for n in range(2, 17)] + HTML)
    head += [(f"<0x{byte:02X}>", "byte") for byte in range(256)]
    tail = user(["\t" * n for n in range(1, 5)]) + special(["<start_of_image>", "<start_of_audio>"])
    tail += special([f"<unused{i}>" for i in range(8, 14)])
    room = config.TEXT_VOCAB - len(head) - len(tail)
    pieces = head + [(piece, "normal") for piece in learn(lines, room)]
    unused = iter(range(14, 10_000))
    pieces += special([f"<unused{next(unused)}>" for _ in range(config.TEXT_VOCAB - len(tail) - len(pieces))])
    pieces += tail
    for name, size in (("image", config.VISION_VOCAB), ("audio", config.AUDIO_VOCAB)):
        pieces += special([f"<end_of_{name}>", f"<{name}_soft_token>"])
        pieces += special([f"<unused{next(unused)}>" for _ in range(size - 2)])
    assert len(pieces) == config.VOCAB and len({text for text, _ in pieces}) == config.VOCAB
    return pieces


def tokenizer_json(pieces):
    """tokenizer.json in the form of the published one."""
    vocab = {text: i for i, (text, _) in enumerate(pieces)}
    merges = [(text[:k], text[k:], i) for text, i in vocab.items() for k in range(1, len(text))
              if text[:k] in vocab and text[k:] in vocab]

    def rank(merge):
        # Inside a run of one character the longest left part comes first, before all others.
        left, right, i = merge
        is_run = len(set(left + right)) == 1 and left[0] in SPACE + "\n\t"
        return (0, -len(left), -len(right), 0) if is_run else (1, i, len(left), len(right))

    merges.sort(key=rank)
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": kind == "special"}
             for i, (text, kind) in enumerate(pieces) if kind in ("special", "user")]
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [config.BOS], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": [[left, right] for left, right, _ in merges]},
    }


NAMED = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
         "boa_token": "<start_of_audio>", "eoa_token": "<end_of_audio>", "audio_token": "<audio_soft_token>"}


def tokenizer_config():
    return {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>", "eos_token": "<eos>",
        "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>", **NAMED,
        "extra_special_tokens": NAMED, "clean_up_tokenization_spaces": False,
        "model_max_length": config.TEXT["max_position_embeddings"], "padding_side": "left",
        "processor_class": "Gemma3nProcessor", "tokenizer_class": "GemmaTokenizer",
        "sp_model_kwargs": None, "spaces_between_special_tokens": False,
        "use_default_system_prompt": False}


# The published template (a system prompt is put before the first user turn).
CHAT_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'audio' -%}
                {{ '<audio_soft_token>' }}
            {%- elif item['type'] == 'image' -%}
                {{ '<image_soft_token>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""


def make(path, lines):
    """Learns the pieces and writes tokenizer.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tokenizer_json(layout(lines)), ensure_ascii=False, indent=1))


def read(path):
    return Tokenizer.from_file(str(path))
