"""Questions people ask about gemma3n, and their answers; small talk, sums, repeating.

A wording is a phrase with alternatives, `(a|b) c`, that fits behind "How do I". All of its
expansions are wordings; one in six is held out, by a hash of its text, and so are some of the
frames around them. Held-out wordings share words with those in training, in other combinations;
FREE holds questions written by hand that no template makes.
"""
import itertools
import re
import zlib

RECORDING = "(a recording|an audio file|a talk|an interview|a podcast|a voice memo|a sound file|speech)"
PICTURE = "(a picture|an image|a photo|a photograph)"
MODEL = "(a model|a gguf file|a model file)"
CONVERSATION = "(a conversation|a chat|my conversation|the conversation|this chat)"

# Answer, then wordings.
COMMANDS = [
    ("gemma3n chat", "(start|begin|open|have) (a conversation|a chat|a dialogue)", "(talk|chat|speak) (to|with) (you|the model|gemma)"),
    ('gemma3n chat "Why is the sky blue?"', "(ask|put|pose) (one question|a single question|just one question)", "get (one|a single|just one) answer (and leave|and exit|without a conversation)"),
    ("gemma3n transcribe talk.mp3", f"(transcribe|write down|turn into text|convert to text) {RECORDING}", f"get (the text|the words|a transcript) (of|from) {RECORDING}"),
    ("gemma3n transcribe -o srt talk.mp3", "(make|write|create|get) (subtitles|an srt file|captions with times) (for a video|for a film|from a recording|of a talk)", "(make|write|create) (subtitles|srt subtitles)"),
    ("arecord -f cd | gemma3n transcribe -", "(transcribe|write down) (from the microphone|what I say|a live stream|my voice live)", "(dictate|use the microphone|listen to the microphone)"),
    ("gemma3n transcribe --translate en talk.mp3", f"translate {RECORDING} (into English|to English)", "(translate speech|get a translation of speech|translate what is said)"),
    ("gemma3n transcribe --language fr talk.mp3", "(set|give|name|choose|tell) the (language|spoken language) (of a recording|of the speech|of an audio file)", f"transcribe {RECORDING} (in French|in another language)"),
    ('gemma3n transcribe --prompt "Ada, Lovelace" talk.mp3', "(give|tell|pass) (names|the spelling of names|names to expect|rare words) (to the transcription|when transcribing|to transcribe)", "(help with|correct|fix) (names|the spelling of names) (in a transcript|in the transcription)"),
    ("gemma3n describe-image photo.jpg", f"(describe|caption) {PICTURE}", f"(get|make|write) a (description|caption) (of|for) {PICTURE}", f"(say|tell|find out) what is (on|in) {PICTURE}"),
    ("gemma3n describe-image --jsonl photos/ > captions.jsonl", "(describe|caption) (a folder|a directory|a whole folder|many files) of (pictures|images|photos)", "(describe|caption) (all my|many|lots of) (pictures|images|photos)"),
    ("gemma3n describe-image --preset alt photo.jpg", f"(write|make|get|create) (alt text|an alt text|alternative text) (for|of) {PICTURE}"),
    ("gemma3n describe-image --sidecar txt *.png", "(put|write|save|store) (a description|descriptions|a text file|captions) (beside|next to) (each picture|every picture|the pictures|each image)"),
    ("gemma3n describe-image --preset ocr page.png", f"(read|get|extract|recognise) the (text|letters|words|writing) (in|on|from) ({PICTURE[1:-1]}|a scan|a page)"),
    ('gemma3n chat -i photo.jpg "What is this?"', f"ask (a question|something|questions) about {PICTURE}", f"(chat|talk) about {PICTURE}"),
    ('gemma3n chat -a sound.wav "What is this?"', f"ask (a question|something|questions) about (a sound|{RECORDING[1:-1]})", "(chat|talk) about (a sound|a recording|an audio file)"),
    ("/image FILE", f"(add|attach|send|show|include) {PICTURE} (in|to|inside|during) (a conversation|the chat|the conversation)"),
    ("/audio FILE", "(add|attach|send|play|include) (a sound|a recording|an audio file) (in|to|inside|during) (a conversation|the chat|the conversation)"),
    ("gemma3n convert DIR -o model.gguf", "(convert|turn|change) (a checkpoint|a hugging face checkpoint|a safetensors checkpoint|safetensors) (to|into) (gguf|a gguf file)", "(make|create|write) a gguf file (from|of) (a checkpoint|safetensors)"),
    ("gemma3n quantize in.gguf out.gguf Q4_K_M", f"(quantize|shrink|compress) {MODEL}", f"make {MODEL} (smaller|fit in less memory|take less memory)", "(use|get) (fewer bits|four bits|Q4_K_M weights)"),
    ("gemma3n convert DIR -o model.gguf --type Q4_K_M", "convert and quantize (a checkpoint|safetensors|a model|in one go|at once|in one pass|in one step)", "(quantize|compress|shrink) a checkpoint (directly|while converting|when converting|at once)"),
    ("gemma3n imatrix -m model.gguf -f text.txt -o model.imatrix.gguf", "(make|compute|create|get|collect|measure) (an importance matrix|an imatrix|the imatrix|the importance of weights)", "find (which weights matter|the important weights|the weights that matter)"),
    ("gemma3n slice e4b.gguf --to e2b -o e2b.gguf", "(cut|slice|carve|make|extract|get) (e2b|a smaller model|a slice|the e2b model) (out of|from) (e4b|the e4b model|a larger model)"),
    ("gemma3n chat --slice e2b", "(use|run|load|chat with) (a slice|the e2b slice|only a part of a model|part of the model) (without a new file|at load|without making a file|at load time)"),
    ("gemma3n inspect model.gguf", f"(inspect|look into|examine) {MODEL}", f"(see|show|find out|list) (what is in|the details of|the metadata of|the layers of|the types in) {MODEL}"),
    ("gemma3n verify -m model.gguf reference.gguf", f"(verify|check|test|prove) (the values|that {MODEL} is correct|the numbers|the exactness) (against the reference|with a reference file)", "compare (a model|the values|a gguf file) (with|to|against) (the reference|reference values)"),
    ("gemma3n bench -m model.gguf", f"(measure|test|benchmark|time) (the speed|how fast {MODEL} is|the tokens per second|the performance)", "(run|do|start) a (benchmark|speed test)", "(see|know|find out) how fast (it is|the model runs|my machine is)"),
    ("gemma3n completions bash", "(install|get|make|print|set up|enable) (shell completions|tab completion|completions for bash|bash completions)"),
    ("gemma3n man", "(get|print|read|make|install|see) (the man page|the manual|a manual page|the manual page)"),
    ("gemma3n chat -m model.gguf", f"(choose|use|pick|select|name|load|run) (another model|a model of my own|a different model|my own gguf file|a certain model)"),
    ("hf download ggml-org/gemma-3n-E2B-it-GGUF", "(get|download|fetch|find|obtain) (a real model|the real model|a bigger model|the real weights|gemma 3n itself|a larger model)"),
    ('gemma3n chat -s "Answer in French."', "(set|give|use|write|change) (a system prompt|the system prompt|instructions for all answers|a system message)", "(make|have) (it|you|the model) (always answer in French|follow instructions)"),
    ("/save FILE", f"(save|store|keep|write out) {CONVERSATION}"),
    ("/load FILE", f"(load|restore|reopen|read back) ({CONVERSATION[1:-1]}|a saved conversation|an old chat)"),
    ("gemma3n chat --session trip.session", "(continue|go on with|resume|pick up) a (conversation|chat|talk) (later|tomorrow|another day|next time)", "(use|have|make|keep) a session (file|across runs)"),
    ("/clear", f"(clear|forget|wipe|reset|empty) ({CONVERSATION[1:-1]}|everything we said|what was said)"),
    ("/quit", f"(quit|leave|exit|end|close) ({CONVERSATION[1:-1]}|the program|gemma3n)"),
    ("/undo", "(undo|take back|remove|drop) (the last turn|my last message|the last question|my last question|what I said last)"),
    ("/retry", "(retry|get another|ask for a new|try for a different|regenerate the) (answer|reply|response)"),
    ("/context", "(see|show|check|find out|know) (how full the context is|how much context is used|the context|how much room is left)"),
    ("gemma3n chat -c 16384", "(set|raise|change|increase|enlarge) (the context size|the context length|the size of the context)", "(have|use|get) (a longer|a bigger|a larger|more) context"),
    ("gemma3n chat --temp 0.7", "(set|change|lower|raise|choose) the (temperature|sampling temperature)", "(make|have) the answers (more random|less random|more creative)"),
    ("gemma3n chat --greedy", "(get|have|give) the same answer (every time|each time|always)", "(use|turn on|choose|switch on) (greedy decoding|greedy sampling|greedy mode)", "(switch off|turn off|avoid) (sampling|randomness)"),
    ("gemma3n chat --seed 7", "(set|choose|fix|give|change) (the seed|a random seed|the random seed)"),
    ("gemma3n chat -t 4", "(set|choose|limit|change) (the number of threads|how many threads it uses|the threads|how many cores it uses)", "use (four threads|fewer threads|more cores|more threads)"),
    ('gemma3n chat --json "Hello"', "(get|print|have|write) (json|the answer as json|json output|machine readable output)", "use (it from a program|the output in a script|it in a script)"),
    ("gemma3n --help", "(get|see|find|read|show) (help|the help|all commands|the options|a list of commands)"),
    ("Ctrl-C", "(stop|interrupt|break off|cut short|halt) (an answer|the answer|a long answer|the reply|it while it writes)"),
    ("cargo install --path .", "(build|compile|install|set up) (gemma3n|the program|this program|gemma3n from source|it from source)"),
    ('git diff | gemma3n chat "Write a commit message"', "(write|make|get|generate) (a commit message|the commit message|commit messages)", "(pipe|send|feed) (a diff|a file|text|input) into (the chat|a question|a prompt|gemma3n)"),
    ('gemma3n chat --raw "Once upon a time"', "(complete|continue|finish) (a text|raw text|a sentence|a story)", "(run|chat|prompt it) without (a template|the template|the chat template)"),
]

FRAMES = ["How do I {}?", "How can I {}?", "How to {}?", "What is the command to {}?",
          "Which command do I use to {}?", "Show me how to {}.", "Please tell me how to {}.",
          "I want to {}.", "I would like to {}.", "What do I type to {}?", "Is there a way to {}?",
          "How would I {}?", "command to {}", "How does one {}?", "Help me to {}.",
          "What should I run to {}?"]
HELD_OUT_FRAMES = ["Could you tell me how to {}?", "How do you {}?", "What is the best way to {}?",
                   "I need to {}.", "Tell me the command to {}."]

# Written by hand, for measuring only.
FREE = [
    ("gemma3n transcribe talk.mp3", "I have an interview as mp3, how do I get it as text?"),
    ("gemma3n transcribe talk.mp3", "Can you write down a podcast for me?"),
    ("gemma3n transcribe -o srt talk.mp3", "My video needs subtitles. What do I run?"),
    ("arecord -f cd | gemma3n transcribe -", "Can it listen to my microphone?"),
    ("gemma3n transcribe --translate en talk.mp3", "The talk is German and I want it translated to English."),
    ("gemma3n describe-image photo.jpg", "What does this photo show? Which command says it?"),
    ("gemma3n describe-image --jsonl photos/ > captions.jsonl", "I have a whole directory of photos to caption."),
    ("gemma3n describe-image --preset alt photo.jpg", "My web site needs alt text for an image."),
    ("gemma3n describe-image --preset ocr page.png", "There is text on a scan, can I extract it?"),
    ('gemma3n chat -i photo.jpg "What is this?"', "Can I ask questions about a photo?"),
    ("gemma3n convert DIR -o model.gguf", "I have safetensors and need gguf."),
    ("gemma3n quantize in.gguf out.gguf Q4_K_M", "The model file is too large, can I shrink it?"),
    ("gemma3n imatrix -m model.gguf -f text.txt -o model.imatrix.gguf", "Where does an importance matrix come from?"),
    ("gemma3n slice e4b.gguf --to e2b -o e2b.gguf", "Can e2b be cut out of the e4b file?"),
    ("gemma3n inspect model.gguf", "What is inside this gguf file?"),
    ("gemma3n bench -m model.gguf", "How fast is it on my machine?"),
    ("gemma3n completions bash", "Does tab completion work in bash?"),
    ("gemma3n man", "Where is the manual?"),
    ("gemma3n chat -m model.gguf", "Can I use a different model?"),
    ("hf download ggml-org/gemma-3n-E2B-it-GGUF", "Where can I download the real model?"),
    ('gemma3n chat -s "Answer in French."', "Can I change the system prompt?"),
    ("/save FILE", "I want to keep this conversation."),
    ("gemma3n chat --session trip.session", "Can I continue this chat tomorrow?"),
    ("/clear", "Forget everything we said."),
    ("/quit", "How do I get out of the program?"),
    ("/undo", "My last message was wrong, can I take it back?"),
    ("/retry", "I do not like the answer, give me another answer."),
    ("gemma3n chat -c 16384", "The context is too small, can it be larger?"),
    ("gemma3n chat --temp 0.7", "The answers are too random, can I lower the temperature?"),
    ("gemma3n chat -t 4", "It uses all cores, can I limit the threads?"),
    ('gemma3n chat --json "Hello"', "I need json for a script."),
    ("Ctrl-C", "The answer is too long, how do I stop it?"),
    ("cargo install --path .", "How is the program installed from source?"),
]

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


def expand(pattern):
    """All phrases of a pattern with alternatives."""
    parts = [part[1:-1].split("|") if part.startswith("(") else [part]
             for part in re.findall(r"\([^)]*\)|[^(]+", pattern)]
    return ["".join(choice) for choice in itertools.product(*parts)]


def is_held_out(wording):
    return zlib.crc32(wording.encode()) % 6 == 0


def wordings(held_out):
    """[(answer, [wordings])] of all commands."""
    out = []
    for answer, *patterns in COMMANDS:
        every = [wording for pattern in patterns for wording in expand(pattern)]
        chosen = [wording for wording in every if is_held_out(wording) == held_out]
        out.append((answer, chosen or every[-1:]))
    return out


TRAINING, HELD_OUT = wordings(False), wordings(True)


def pick(rng, items):
    return items[int(rng.integers(len(items)))]


def casual(rng, text):
    """As people type: sometimes without a capital or the mark at the end."""
    if rng.random() < 0.15:
        text = text[0].lower() + text[1:]
    return text.rstrip("?.") if rng.random() < 0.15 else text


def command(rng, held_out=False):
    answer, phrases = pick(rng, HELD_OUT if held_out else TRAINING)
    frames = FRAMES if not held_out or rng.random() < 0.5 else HELD_OUT_FRAMES
    return casual(rng, pick(rng, frames).format(pick(rng, phrases))), answer


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
    for answer, phrases in TRAINING:
        lines += [answer] * 20 + phrases
    for answer, forms in SMALL_TALK:
        lines += [answer] * 10 + forms
    lines += [frame.format("") for frame in FRAMES] * 20 + [UNKNOWN] * 10 + THINGS + OPEN * 3
    lines += [" ".join(WORDS)] * 10 + REPEAT * 3 + [form for form, _ in SUMS] * 3
    return lines
