"""What people say to the model, and the answers: commands, small talk, sums, repeating."""
import json
from pathlib import Path

from data_commands import FRAMES, HELD_OUT, HELD_OUT_FRAMES, TRAINING

SMALL_TALK = [
    ("Hello! Ask me about gemma3n.", ["Hello", "Hi", "Hello!", "Hi!", "Hi there", "Hello there", "Hey", "Good morning", "Good evening", "Good day", "Greetings"]),
    ("I am fine, thank you.", ["How are you?", "How are you today?", "How do you do?", "Are you well?", "How is it going?", "Are you fine?"]),
    ("I am the small model inside gemma3n.", ["Who are you?", "What are you?", "What is your name?", "Tell me who you are.", "Are you a model?", "What model are you?", "Introduce yourself."]),
    ("I answer questions about gemma3n, write down spoken words and describe simple pictures.", ["What can you do?", "What do you know?", "What are you good at?", "What can I ask you?", "How can you help me?", "What are you able to do?"]),
    ("You are welcome.", ["Thanks", "Thanks!", "Thank you", "Thank you very much", "Thanks a lot", "Many thanks", "That helped, thank you."]),
    ("Goodbye!", ["Bye", "Goodbye", "See you", "See you later", "Good night", "Bye bye"]),
    ("gemma3n runs Gemma 3n from GGUF files: text, pictures and sound.", ["What is gemma3n?", "What does gemma3n do?", "What is this program?", "Tell me about gemma3n.", "What is gemma3n for?", "Explain gemma3n."]),
    ("No. It never uses the network.", ["Do you use the network?", "Is my data sent anywhere?", "Do you go online?", "Does it need the internet?", "Does gemma3n use the network?", "Is anything uploaded?"]),
]

UNKNOWN = "I do not know that. I am a small model; ask me about gemma3n."
THINGS = """the sea|the moon|a poem|a cat|history|music|France|Germany|love|physics|the weather|a cake|
football|a joke|a story|water|the sun|the stars|art|a dog|trees|rivers|mountains|birds|the king|Rome|
cooking|bread|money|time|a letter|school|medicine|films|books|the news|cars|trains|ships|coffee|tea|
a garden|winter|summer|light|gravity|numbers|Paris|London|Japan|the future|space|a song|fish""".replace("\n", "").split("|")
OPEN = ["What is {}?", "Tell me about {}.", "Write something about {}.", "Explain {} to me.",
        "Why is {} so important?", "Who knows about {}?", "What do you think of {}?", "Write {}.",
        "Do you like {}?", "When was {} invented?", "Where can I find {}?", "How old is {}?"]

WORDS = """apple river house green stone paper window garden silver morning yellow table music summer
winter forest bread water light cloud road bridge letter small large quick slow bright dark happy quiet
door chair cup plate spoon horse bird fish tree leaf flower grass hill lake sea sand snow rain wind fire
night day week month year red blue white black round long short open closed hand foot eye ear nose mouth
king queen ship train car wheel box bag coat hat shoe ring clock bell book page word name line song voice
zero one two three four five six seven eight nine yes no up down left right on off stop go""".split()
REPEAT = ["Repeat: {}", "Repeat after me: {}", "Say: {}", "Say this: {}", "Repeat this: {}", "Please repeat: {}"]
HELD_OUT_REPEAT = ["Please say: {}", "Say after me: {}"]

SUMS = [("{} + {}", "+"), ("What is {} + {}?", "+"), ("What is {} plus {}?", "+"), ("How much is {} plus {}?", "+"),
        ("Add {} and {}.", "+"), ("{} - {}", "-"), ("What is {} - {}?", "-"), ("What is {} minus {}?", "-"),
        ("How much is {} minus {}?", "-"), ("{} * {}", "*"), ("What is {} times {}?", "*"),
        ("How much is {} times {}?", "*")]
HELD_OUT_SUMS = [("How much is {} + {}?", "+"), ("How much is {} - {}?", "-"), ("What is {} * {}?", "*"),
                 ("Tell me {} plus {}.", "+")]


def free():
    """[(question, answer)] of questions written by hand, for measuring only."""
    lines = (Path(__file__).parent / "free.jsonl").read_text().splitlines()
    return [(record["prompt"], record["expected"]) for record in map(json.loads, lines)]


def pick(rng, items):
    return items[int(rng.integers(len(items)))]


def casual(rng, text):
    """As people type: sometimes without a capital or the mark at the end."""
    if rng.random() < 0.15:
        text = text[0].lower() + text[1:]
    return text.rstrip("?.") if rng.random() < 0.15 else text


POLITE = ["Please, ", "Hi, ", "Hello, ", "Sorry, ", "OK, ", "And "]
BEHIND = [" with gemma3n", " in gemma3n", " here", " please", " with this program", " from the terminal"]
SMALL_WORDS = {"a", "an", "the", "my", "of", "to", "do", "I", "is", "please", "for", "with", "it"}


def loosely(rng, text):
    """With a word before or behind, or without some small words, as people type."""
    share = rng.random()
    if share < 0.06:
        first = text[0] if text[:2] in ("I ", "I'") else text[0].lower()
        return pick(rng, POLITE) + first + text[1:]
    if share < 0.14:
        end = text[-1] if text[-1] in ".?" else ""
        return text.removesuffix(end) + pick(rng, BEHIND) + end
    if share < 0.22:
        return " ".join(w for w in text.split() if w not in SMALL_WORDS or rng.random() < 0.5) or text
    return text


def command(rng, held_out=False):
    """A question about the program and the command that answers it."""
    answer, groups = pick(rng, HELD_OUT if held_out else TRAINING)
    wording = pick(rng, pick(rng, groups))
    frames = FRAMES if not held_out or rng.random() < 0.5 else HELD_OUT_FRAMES
    text = wording[1:] if wording.startswith("=") else pick(rng, frames).format(wording)
    text = text[0].upper() + text[1:]
    return casual(rng, text if held_out else loosely(rng, text)), answer


def small_talk(rng):
    answer, forms = pick(rng, SMALL_TALK)
    return casual(rng, pick(rng, forms)), answer


def unknown(rng):
    return casual(rng, pick(rng, OPEN).format(pick(rng, THINGS))), UNKNOWN


def arithmetic(rng, held_out=False):
    form, sign = pick(rng, HELD_OUT_SUMS if held_out else SUMS)
    a, b = int(rng.integers(11)), int(rng.integers(11))
    if sign == "-":
        a, b = max(a, b), min(a, b)
    return form.format(a, b), str({"+": a + b, "-": a - b, "*": a * b}[sign])


def repeat(rng, held_out=False):
    words = " ".join(pick(rng, WORDS) for _ in range(int(rng.integers(1, 6))))
    return pick(rng, HELD_OUT_REPEAT if held_out else REPEAT).format(words), words


KINDS = {"command": (0.6, command), "small talk": (0.08, small_talk), "unknown": (0.08, unknown),
         "arithmetic": (0.12, arithmetic), "repeat": (0.12, repeat)}


def exchange(rng):
    """A question and its answer, from training."""
    share = rng.random()
    for weight, make in KINDS.values():
        if share < weight:
            return make(rng)
        share -= weight
    return repeat(rng)


def corpus():
    """All text there is in training, for the tokenizer."""
    lines = []
    for answer, groups in TRAINING:
        lines += [answer] * 60
        # As many lines of each pattern, however many expansions it has.
        lines += [group[i % len(group)].removeprefix("=") for group in groups for i in range(40)]
    for answer, forms in SMALL_TALK:
        lines += [answer] * 10 + forms
    lines += [frame.format("") for frame in FRAMES] * 20 + POLITE * 5 + BEHIND * 10
    lines += [UNKNOWN] * 10 + THINGS + OPEN * 3
    lines += [" ".join(WORDS)] * 10 + REPEAT * 3 + [form for form, _ in SUMS] * 3
    return lines
