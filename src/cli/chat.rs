//! `gemma3n chat`: one answer to a prompt, or a conversation at the terminal.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use serde_json::json;

use super::input;
use super::interrupt::Interrupt;
use super::options::{ModelArgs, ModelOptions, SamplingArgs};
use super::output::{Hint, Output, Verbosity, hinted};
use super::progress::{Progress, Unit};
use super::repl::{self, LineEditor};
use super::shown::{Shown, ShownArgs};
use super::{Status, usage_error};
use crate::bench;
use crate::session::{
    self, CacheType, ContextFull, Conversation, ConversationOptions, Engine, Event, Finish, Reply,
};

const EXAMPLES: &str = "\
Examples:
  gemma3n chat -m model.gguf                     talk; /help shows the commands
  gemma3n chat \"Why is the sky blue?\"            one answer, then exit
  git diff | gemma3n chat \"Write a commit message\"
  gemma3n chat -f prompt.txt --json > answer.json
  gemma3n chat -i cat.jpg -a meow.wav \"What is going on?\"
  gemma3n chat -s \"Answer in French.\" \"Who wrote Faust?\"
  gemma3n chat --session trip.session            goes on where it ended
  gemma3n chat --raw \"Once upon a time\" -n 64    completes a text as it is

A prompt (argument, -p, -f) or an input that is not a terminal gives one
answer; given together, the prompt comes first, then a blank line and the input.
Pictures and sounds stand before the words, in the order of their flags; - reads
one from standard input. The answer goes to stdout, all else to stderr.

With --json: {\"text\", \"ids\", \"tokens\": {\"prompt\", \"cached\", \"generated\"},
\"finish\": \"stop\"|\"length\"|\"context\"|\"interrupted\", \"timings\": {...},
\"model\": {\"name\", \"file\", \"sha\", \"slice\"}}; times are in seconds.";

/// Talk with a model, or have one prompt answered
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The prompt
    #[arg(value_name = "PROMPT")]
    text: Option<String>,
    /// The prompt, as a flag
    #[arg(short, long, value_name = "TEXT", conflicts_with = "text", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Read the prompt from a file, - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    shown: ShownArgs,
    /// What the model is told before the conversation; @FILE reads it from a file
    #[arg(short, long, value_name = "TEXT|@FILE")]
    system: Option<String>,
    /// Complete the text as it stands, without a chat template; control tokens count as such
    #[arg(long, conflicts_with_all = ["system", "template", "session"])]
    raw: bool,
    /// A chat template (Jinja) instead of the model's own
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Go on from this file if it exists, and save to it at the end
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    /// Print one JSON object with the answer and its figures
    #[arg(long)]
    json: bool,
    /// Go on past the model's end of turn, to the limit of -n
    #[arg(long)]
    ignore_eos: bool,
    /// What happens when the context is full
    #[arg(long, value_name = "WHAT", default_value = "drop")]
    context_full: ContextFullArg,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ContextFullArg {
    /// The oldest turns are forgotten
    Drop,
    /// The answer ends
    Stop,
}

/// One answer to a prompt, or a conversation.
enum Talk {
    Once(String),
    On(Box<LineEditor>),
}

/// Runs the command.
///
/// # Errors
/// No model, no readable prompt, or a failure on the way.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<Status> {
    let options = args.model.resolve(args.template.clone(), CacheType::F16, output)?;
    let prompt = prompt(args)?;
    if prompt.is_none() {
        let from_stdin = args.shown.stdin_count() > 0;
        let needs = [
            (args.json, "--json"),
            (args.raw, "--raw"),
            (from_stdin, "a picture or sound from standard input"),
        ];
        if let Some((_, flag)) = needs.iter().find(|(given, _)| *given) {
            return Err(usage_error(
                "chat",
                format_args!("{flag} needs a prompt, -f FILE or an input"),
            ));
        }
    }
    if let Some(file) = &args.session {
        can_be_written(file)?;
    }
    args.shown.require_towers(&options)?;
    let talk = match prompt {
        Some(prompt) => Talk::Once(prompt),
        // The editor's handler of SIGINT comes first, for ours to stand before it.
        None => Talk::On(Box::new(LineEditor::new(output).context("terminal")?)),
    };
    let interrupt = Interrupt::install().context("Ctrl-C cannot be caught")?;
    let system = args.system.as_deref().map(system_text).transpose()?;
    let mut chat = open(args, &options, system.clone(), &interrupt, output)?;
    if let Some(file) = args.session.as_deref().filter(|file| file.exists()) {
        chat.load(file).map_err(told)?;
        if system.is_some() {
            chat.set_system(system);
        }
    }
    let shown = Shown::take(&args.shown, chat.engine(), output)?;
    let status = match talk {
        Talk::On(editor) => {
            repl::run(&mut chat, *editor, shown.parts, &options, &interrupt, output)
        }
        Talk::Once(prompt) => {
            interrupt.catch();
            answer_once(args, &options, &mut chat, (shown, &prompt), output)
        }
    };
    // A closed pipe or a failure is no reason to lose what was said.
    if let Some(file) = &args.session {
        chat.save(file).map_err(told)?;
    }
    status
}

/// The prompt in one piece; `None` when the user sits at the terminal and gave none.
fn prompt(args: &Args) -> anyhow::Result<Option<String>> {
    let file_is_stdin = args.file.as_ref().is_some_and(|file| file.as_os_str() == "-");
    let from_stdin = args.shown.stdin_count();
    if from_stdin + usize::from(file_is_stdin) > 1 {
        return Err(usage_error("chat", "standard input (-) can be read only once"));
    }
    let mut parts: Vec<String> = Vec::new();
    parts.extend(args.text.iter().chain(&args.prompt).cloned());
    if let Some(file) = &args.file {
        parts.push(input::read_text(file)?);
    }
    if !file_is_stdin && from_stdin == 0 && !io::stdin().is_terminal() {
        parts.push(input::read_stdin()?);
    }
    if parts.is_empty() {
        return Ok(None);
    }
    // An input of nothing, as from /dev/null, adds nothing.
    parts.retain(|part| !part.is_empty());
    let prompt = parts.join("\n\n");
    let nothing = if args.raw { prompt.is_empty() } else { prompt.trim().is_empty() };
    if nothing {
        return Err(anyhow!("the prompt is empty")).hint(|| {
            "give it as an argument, with -f FILE or on standard input; with neither, at a terminal, \
             one can talk"
                .to_owned()
        });
    }
    Ok(Some(prompt))
}

/// Tells before the work, not after it, that a session file has no folder to lie in.
fn can_be_written(file: &Path) -> anyhow::Result<()> {
    match file.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()) {
        Some(dir) => Err(anyhow!("{}: no directory {}", file.display(), dir.display())),
        None => Ok(()),
    }
}

fn system_text(typed: &str) -> anyhow::Result<String> {
    match typed.strip_prefix('@') {
        Some(file) => input::read_text(file.as_ref()),
        None => Ok(typed.to_owned()),
    }
}

fn open(
    args: &Args,
    options: &ModelOptions,
    system: Option<String>,
    interrupt: &Interrupt,
    output: &Output,
) -> anyhow::Result<Conversation> {
    let engine = Engine::open(&options.engine).map_err(told)?;
    let decoder = options.decoder(&engine, output);
    let sampler = args.sampling.resolve(engine.sampling_defaults());
    if output.verbosity() == Verbosity::Verbose {
        explain_opening(&engine, output);
        output.explain(format_args!(
            "threads {}, context {}, batch {}, cache {:?}, kernels {:?}",
            decoder.threads, decoder.context, decoder.batch, decoder.cache, decoder.kernels
        ));
        output.explain(format_args!(
            "temperature {}, top-k {}, top-p {}, min-p {}, repeat penalty {} over {}, seed {}",
            sampler.temperature,
            sampler.top_k,
            sampler.top_p,
            sampler.min_p,
            sampler.repeat_penalty,
            sampler.repeat_last_n,
            sampler.seed.unwrap_or_default()
        ));
    }
    let options = ConversationOptions {
        decoder,
        sampler,
        system,
        context_full: match args.context_full {
            ContextFullArg::Drop => ContextFull::Drop,
            ContextFullArg::Stop => ContextFull::Stop,
        },
        stops: args.sampling.stop.clone(),
        max_tokens: args.sampling.predict.0,
        ignore_eos: args.ignore_eos,
    };
    let mut chat = Conversation::new(engine, options).map_err(told)?;
    chat.set_interrupt(interrupt.flag());
    Ok(chat)
}

pub fn explain_opening(engine: &Arc<Engine>, output: &Output) {
    let timings = engine.timings();
    output.explain(format_args!("model {} from {}", engine.name(), engine.path().display()));
    if let Some(slice) = engine.slice() {
        output.explain(format_args!("slice {slice}"));
    }
    output.explain(format_args!(
        "opened in {:.3} s: file {:.3}, weights {:.3}, tokenizer {:.3}, template {:.3}",
        timings.total().as_secs_f64(),
        timings.file.as_secs_f64(),
        timings.model.as_secs_f64(),
        timings.tokenizer.as_secs_f64(),
        timings.template.as_secs_f64()
    ));
    output.explain(format_args!("chat template: {}", engine.template_source()));
    if let Some(towers) = engine.towers() {
        output.explain(format_args!("towers from {}", towers.path().display()));
    }
}

fn answer_once(
    args: &Args,
    options: &ModelOptions,
    chat: &mut Conversation,
    (shown, prompt): (Shown, &str),
    output: &Output,
) -> anyhow::Result<Status> {
    let mut stream = Stream::new(output, !args.json);
    let reply = if args.raw {
        chat.complete_raw(prompt, &shown.parts, &mut |event| stream.hear(event))
    } else {
        chat.push_user_with(shown.parts.clone(), prompt);
        chat.reply(&mut |event| stream.hear(event))
    };
    stream.end()?;
    let reply = reply.map_err(told)?;
    if args.json {
        let mut stdout = output.stdout();
        writeln!(stdout, "{}", as_json(&reply, shown.looking, chat.engine()))?;
        stdout.flush()?;
    }
    if reply.finish == Finish::Context {
        let capacity = chat.context_usage().capacity;
        output.warn(format_args!(
            "the answer ends here: the context of {capacity} positions is full"
        ));
    }
    if options.timings || output.verbosity() == Verbosity::Verbose {
        for line in shown.figures().into_iter().chain(figures(&reply)) {
            output.say(line);
        }
    }
    Ok(if reply.finish == Finish::Interrupted { Status::Interrupted } else { Status::Done })
}

fn as_json(reply: &Reply, seen: std::time::Duration, engine: &Engine) -> serde_json::Value {
    let ids: Vec<u32> = reply.ids.iter().map(|id| id.0).collect();
    let timings = &reply.timings;
    json!({
        "text": reply.text,
        "ids": ids,
        "tokens": {
            "prompt": reply.tokens.prompt,
            "cached": reply.tokens.cached,
            "generated": reply.tokens.generated,
        },
        "finish": reply.finish,
        "timings": {
            "open": engine.timings().total().as_secs_f64(),
            "pictures": seen.as_secs_f64(),
            "prefilled": timings.prefilled,
            "prompt": timings.prompt.as_secs_f64(),
            "first_token": timings.first_token.map(|time| time.as_secs_f64()),
            "decode": timings.decode.as_secs_f64(),
            "total": timings.total.as_secs_f64(),
        },
        "model": {
            "name": engine.name(),
            "file": engine.path().display().to_string(),
            "sha": engine.fingerprint(),
            "slice": engine.slice(),
        },
    })
}

/// What `--timings` and `/stats` print about an answer.
pub fn figures(reply: &Reply) -> Vec<String> {
    let (tokens, timings) = (&reply.tokens, &reply.timings);
    let rate = |tokens: usize, time: f64| {
        if time > 0.0 && tokens > 0 {
            format!(", {:.1} tokens/s", tokens as f64 / time)
        } else {
            String::new()
        }
    };
    let (prompt, decode) = (timings.prompt.as_secs_f64(), timings.decode.as_secs_f64());
    let mut lines = vec![
        format!(
            "prompt: {} tokens, {} from the cache, {} read in {prompt:.2} s{}",
            tokens.prompt,
            tokens.cached,
            timings.prefilled,
            rate(timings.prefilled, prompt)
        ),
        // The first token comes out of the prompt; the time is that of those after it.
        format!(
            "answer: {} tokens in {decode:.2} s{}",
            tokens.generated,
            rate(tokens.generated.saturating_sub(1), decode)
        ),
    ];
    if let Some(first) = timings.first_token {
        lines.push(format!("first token after {:.2} s", first.as_secs_f64()));
    }
    if let Some(bytes) = bench::peak_resident() {
        lines.push(format!("peak memory {:.0} MiB", bytes as f64 / f64::from(1 << 20)));
    }
    lines
}

/// An error of the session with its hint.
pub fn told(error: session::Error) -> anyhow::Error {
    match error.hint() {
        Some(hint) => hinted(error, hint),
        None => error.into(),
    }
}

/// Prints an answer as it comes.
pub struct Stream<'a> {
    output: &'a Output,
    /// Whether the words go to stdout.
    shown: bool,
    progress: Option<Progress>,
    /// Length of the prompt that the progress shows.
    total: usize,
    ends_line: bool,
    notices: Vec<String>,
    failure: Option<io::Error>,
}

impl<'a> Stream<'a> {
    pub fn new(output: &'a Output, shown: bool) -> Self {
        let progress = Some(Progress::spinner(output, "thinking"));
        Self {
            output,
            shown,
            progress,
            total: 0,
            ends_line: true,
            notices: Vec::new(),
            failure: None,
        }
    }

    /// The conversation's listener.
    pub fn hear(&mut self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Text(text) => {
                self.progress = None;
                if self.shown {
                    self.ends_line = text.ends_with('\n');
                    if let Err(error) = self.output.answer(text) {
                        self.failure = Some(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            Event::Prefill { done, total } => self.prefill(done, total),
            // Said when the answer is over, so as not to stand in the midst of it.
            Event::TurnsDropped { turns, kept, capacity } => self.notices.push(format!(
                "the context was full: the oldest {} forgotten, {kept} of {capacity} positions are in use",
                if turns == 1 { "turn is".to_owned() } else { format!("{turns} turns are") }
            )),
        }
        ControlFlow::Continue(())
    }

    /// A long prompt gets a bar, as soon as there is something to tell.
    fn prefill(&mut self, done: usize, total: usize) {
        if done >= total || self.progress.is_none() || !self.output.draws() {
            return;
        }
        if self.total != total {
            self.total = total;
            self.progress = None;
            let bar = Progress::bar(self.output, "reading", Unit::Tokens, total as u64);
            self.progress = Some(bar);
        }
        if let Some(progress) = &self.progress {
            progress.set(done as u64);
        }
    }

    /// Ends the answer's last line and says what had to wait.
    ///
    /// # Errors
    /// Stdout failed, now or before.
    pub fn end(self) -> io::Result<()> {
        drop(self.progress);
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if !self.ends_line {
            self.output.answer("\n")?;
        }
        for notice in self.notices {
            self.output.notice(notice);
        }
        Ok(())
    }
}
