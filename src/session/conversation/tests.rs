use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::*;
use crate::model::text::{CacheType, Kernels};
use crate::session::SessionFault;
use crate::session::script::{self, BOS, END, Log, NEWLINES, START, Scripted};
use crate::tokenizer::Specials;

fn options() -> ConversationOptions {
    ConversationOptions {
        decoder: DecoderOptions {
            context: 0,
            batch: 8,
            cache: CacheType::F16,
            threads: 1,
            kernels: Kernels::Auto,
        },
        sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        system: None,
        context_full: ContextFull::Drop,
        stops: Vec::new(),
        max_tokens: None,
        ignore_eos: false,
    }
}

struct Bench {
    talk: Conversation,
    log: Arc<Mutex<Log>>,
}

impl Bench {
    fn with(decoder: Scripted, options: ConversationOptions) -> Self {
        let log = decoder.log.clone();
        let language = Arc::new(script::gemma());
        let names = (PathBuf::from("m.gguf"), "M".to_owned());
        let talk = Conversation::with_decoder(language, names, Box::new(decoder), options).unwrap();
        Self { talk, log }
    }

    fn new(capacity: usize) -> Self {
        Self::with(Scripted::new(capacity), options())
    }

    fn ids(&self, text: &str) -> Vec<TokenId> {
        self.talk.language.tokenizer().encode(text, Specials::Parse)
    }

    /// The model will say this, one token a character.
    fn script(&self, text: &str) {
        let ids = self.ids(text);
        self.log.lock().unwrap().answers.extend(ids);
    }

    /// Tokens read since the last look, and the steps it took.
    fn steps(&self) -> Vec<usize> {
        std::mem::take(&mut self.log.lock().unwrap().steps)
    }

    fn ask(&mut self, text: &str, answer: &str) -> Reply {
        self.script(answer);
        self.script("<end_of_turn>");
        self.talk.push_user(text);
        let reply = self.talk.reply(&mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(reply.text, answer);
        self.assert_in_step();
        reply
    }

    fn assert_in_step(&self) {
        assert_eq!(self.log.lock().unwrap().held, self.talk.cache.ids());
    }

    fn said(&self) -> Vec<String> {
        self.talk.messages().iter().map(Message::words).collect()
    }
}

fn go_on(_: Event<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_second_turn_reads_only_what_is_new() {
    let mut bench = Bench::new(500);
    let first = bench.ask("one", "two");
    let prompt = bench.ids("<bos><start_of_turn>user\none<end_of_turn>\n<start_of_turn>model\n");
    assert_eq!(first.tokens.prompt, prompt.len());
    assert_eq!((first.tokens.cached, first.tokens.generated), (0, 4));
    assert_eq!(first.ids, bench.ids("two<end_of_turn>"));
    assert_eq!(first.finish, Finish::Stop);
    // Batches of 8, then the answer token by token; its end is not read.
    assert_eq!(bench.steps(), [8, 8, prompt.len() - 16, 1, 1, 1]);

    let second = bench.ask("three", "x");
    let new =
        bench.ids("<end_of_turn>\n<start_of_turn>user\nthree<end_of_turn>\n<start_of_turn>model\n");
    assert_eq!(second.tokens.cached, prompt.len() + 3);
    assert_eq!(second.timings.prefilled, new.len());
    assert_eq!(second.tokens.prompt, prompt.len() + 3 + new.len());
    assert_eq!(bench.steps().iter().sum::<usize>(), new.len() + 1);
    assert_eq!(bench.said(), ["one", "two", "three", "x"]);
}

#[test]
fn what_the_template_trims_is_read_again() {
    let mut bench = Bench::new(500);
    let first = bench.ask("q", "yes  ");
    assert_eq!(bench.talk.cache.len(), first.tokens.prompt + 5);
    // A file holds only what the next turn keeps.
    let folder = tempfile::tempdir().unwrap();
    bench.talk.save(&folder.path().join("talk")).unwrap();
    assert_eq!(bench.talk.cache.len(), first.tokens.prompt + 3);
    bench.assert_in_step();
    let second = bench.ask("r", "x");
    assert_eq!(second.tokens.cached, first.tokens.prompt + 3);
}

#[test]
fn a_rollback_may_land_earlier_than_asked() {
    let decoder = Scripted { reach: 5, ..Scripted::new(500) };
    let mut bench = Bench::with(decoder, options());
    bench.ask("one", "two");
    assert_eq!(bench.talk.undo().map(|message| message.words()).as_deref(), Some("one"));
    let reply = bench.ask("only", "yes");
    let common = bench.ids("<bos><start_of_turn>user\no").len();
    assert_eq!(reply.tokens.cached, common / 5 * 5);
    let all = bench.ids("<bos><start_of_turn>user\nonly<end_of_turn>\n<start_of_turn>model\nyes");
    assert_eq!(bench.talk.cache.ids(), all);
}

#[test]
fn retry_answers_anew_and_undo_takes_back() {
    let mut bench = Bench::new(500);
    bench.ask("one", "two");
    let first = bench.ask("three", "four");
    assert!(bench.talk.retry());
    assert_eq!(bench.said(), ["one", "two", "three"]);
    bench.script("five<end_of_turn>");
    let reply = bench.talk.reply(&mut go_on).unwrap();
    assert_eq!(reply.text, "five");
    // The whole prompt is held; its last token is read for the logits.
    assert_eq!(reply.tokens.cached, first.tokens.prompt - 1);
    assert_eq!(bench.talk.undo().map(|message| message.words()).as_deref(), Some("three"));
    assert_eq!(bench.said(), ["one", "two"]);
    assert_eq!(bench.talk.undo().map(|message| message.words()).as_deref(), Some("one"));
    assert_eq!(bench.talk.undo(), None);
    assert!(!bench.talk.retry());
    assert!(matches!(bench.talk.reply(&mut go_on), Err(Error::NothingToAnswer)));
}

#[test]
fn stop_strings_end_an_answer_across_tokens() {
    let stops = vec!["END".to_owned(), "zz".to_owned()];
    let mut bench = Bench::with(Scripted::new(500), ConversationOptions { stops, ..options() });
    bench.script("a EN ENDb");
    bench.talk.push_user("q");
    let mut heard = Vec::new();
    let reply = bench
        .talk
        .reply(&mut |event| {
            if let Event::Text(text) = event {
                heard.push(text.to_owned());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("a EN ", Finish::Stop));
    assert_eq!(heard.concat(), "a EN ");
    assert!(heard.iter().all(|text| !text.is_empty()));
    assert_eq!(reply.ids, bench.ids("a EN END"));
    // What was held back for a stop string is released when the model ends first.
    bench.log.lock().unwrap().answers.clear();
    bench.ask("r", "xz");
}

#[test]
fn answers_end_at_their_length_or_go_on_past_the_end_of_turn() {
    let limited = ConversationOptions { max_tokens: Some(4), ..options() };
    let mut bench = Bench::with(Scripted::new(500), limited);
    bench.script("abcdef");
    bench.talk.push_user("q");
    let reply = bench.talk.reply(&mut go_on).unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("abcd", Finish::Length));
    bench.talk.set_max_tokens(Some(0));
    assert!(bench.talk.retry());
    let reply = bench.talk.reply(&mut go_on).unwrap();
    assert_eq!((reply.tokens.generated, reply.finish), (0, Finish::Length));

    let deaf = ConversationOptions { max_tokens: Some(5), ignore_eos: true, ..options() };
    let mut bench = Bench::with(Scripted::new(500), deaf);
    bench.script("a<end_of_turn><eos>bc");
    bench.talk.push_user("q");
    let reply = bench.talk.reply(&mut go_on).unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("abc", Finish::Length));
    assert_eq!(reply.ids[1], END);
}

#[test]
fn half_a_character_is_not_shown_before_its_end() {
    let mut bench = Bench::new(500);
    bench.script("é");
    bench.script("\u{1F600}");
    assert_eq!(bench.log.lock().unwrap().answers.len(), 6);
    bench.talk.push_user("q");
    let mut heard = Vec::new();
    bench
        .talk
        .reply(&mut |event| {
            if let Event::Text(text) = event {
                heard.push(text.to_owned());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(heard.concat(), "é\u{1F600}");
    assert!(heard.iter().all(|text| !text.contains('\u{FFFD}')), "{heard:?}");
}

#[test]
fn an_interrupted_answer_keeps_what_was_said() {
    let mut bench = Bench::new(500);
    bench.script("abcdef");
    bench.talk.push_user("q");
    let mut left = 3;
    let reply = bench
        .talk
        .reply(&mut |event| match event {
            Event::Text(_) => {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
            _ => ControlFlow::Continue(()),
        })
        .unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("abc", Finish::Interrupted));
    assert_eq!(bench.said(), ["q", "abc"]);
    bench.assert_in_step();
}

#[test]
fn interrupted_before_a_word_the_question_waits_for_more() {
    let mut bench = Bench::new(500);
    let flag = Arc::new(AtomicBool::new(true));
    bench.talk.set_interrupt(flag.clone());
    bench.talk.push_user("one");
    let reply = bench.talk.reply(&mut go_on).unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("", Finish::Interrupted));
    assert_eq!(bench.said(), ["one"]);
    flag.store(false, Ordering::Relaxed);
    // While the prompt is read, the listener can end it too.
    let reply = bench.talk.reply(&mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!(reply.finish, Finish::Interrupted);
    assert_eq!(bench.steps(), [8]);
    bench.assert_in_step();
    bench.ask("two", "yes");
    assert_eq!(bench.said(), ["one\n\ntwo", "yes"]);
}

#[test]
fn logits_that_are_not_finite_are_an_error() {
    let mut bench = Bench::new(500);
    bench.ask("one", "two");
    bench.log.lock().unwrap().finite_steps = Some(0);
    bench.talk.push_user("three");
    let error = bench.talk.reply(&mut go_on).unwrap_err().to_string();
    assert!(error.starts_with("m.gguf: ") && error.contains("not finite"), "{error}");
    assert_eq!(bench.said(), ["one", "two"]);
    bench.log.lock().unwrap().finite_steps = None;
    bench.assert_in_step();
    bench.ask("three", "four");
}

#[test]
fn a_full_context_drops_the_oldest_turns_and_never_the_system_text() {
    let system = Some("SYS".to_owned());
    let mut bench = Bench::with(Scripted::new(100), ConversationOptions { system, ..options() });
    // 17 tokens around system text and turn, 12 around each further turn, and the words.
    let mut dropped = Vec::new();
    for turn in 0..12 {
        let word = format!("question{turn:02}");
        bench.script("abcde<end_of_turn>");
        bench.talk.push_user(&word);
        let reply = bench
            .talk
            .reply(&mut |event| {
                if let Event::TurnsDropped { turns, kept, capacity } = event {
                    dropped.push((turns, kept, capacity));
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!((reply.text.as_str(), reply.finish), ("abcde", Finish::Stop));
        bench.assert_in_step();
        let held = bench.talk.cache.ids();
        assert_eq!(held[..3], [BOS, START, bench.ids("u")[0]]);
        let start = bench.ids("<bos><start_of_turn>user\nSYS\n\nquestion");
        assert_eq!(held[..start.len()], start);
        assert_eq!(bench.talk.messages().last().unwrap().words(), "abcde");
    }
    assert!(!dropped.is_empty());
    for (turns, kept, capacity) in dropped {
        assert!(turns >= 1 && kept <= capacity / 2, "{turns} {kept}");
    }
    assert!(bench.talk.messages().len().is_multiple_of(2));
    assert_eq!(bench.said()[bench.said().len() - 2], "question11");
}

#[test]
fn an_answer_goes_on_over_the_drop_of_old_turns() {
    let mut bench = Bench::new(80);
    bench.ask("one", "two");
    let long = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH";
    let reply = bench.ask("three", long);
    assert_eq!(reply.finish, Finish::Stop);
    assert_eq!(bench.said(), ["three", long]);
    let held = bench.talk.cache.ids().to_vec();
    let all = format!("<bos><start_of_turn>user\nthree<end_of_turn>\n<start_of_turn>model\n{long}");
    assert_eq!(held, bench.ids(&all));
    // Nothing is left to drop: the answer ends with the context.
    bench.script(&long.repeat(3));
    assert!(bench.talk.retry());
    let reply = bench.talk.reply(&mut go_on).unwrap();
    assert_eq!(reply.finish, Finish::Context);
    assert_eq!(reply.tokens.prompt + reply.tokens.generated, 80 + 1);
}

#[test]
fn a_full_context_may_end_the_answer_instead() {
    let stop = ConversationOptions { context_full: ContextFull::Stop, ..options() };
    let mut bench = Bench::with(Scripted::new(60), stop);
    bench.ask("one", "two");
    bench.script(&"x".repeat(100));
    bench.talk.push_user("three");
    let reply = bench.talk.reply(&mut go_on).unwrap();
    assert_eq!(reply.finish, Finish::Context);
    bench.talk.push_user("four");
    match bench.talk.reply(&mut go_on) {
        Err(Error::ContextFull { tokens, capacity: 60, .. }) => assert!(tokens > 60),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.said().len(), 4);
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_numbers() {
    let mut bench = Bench::new(60);
    bench.ask("one", "two");
    bench.talk.push_user(&"x".repeat(100));
    let error = bench.talk.reply(&mut go_on).unwrap_err();
    let tokens = bench.ids("<bos><start_of_turn>user\n<end_of_turn>\n<start_of_turn>model\n").len();
    assert_eq!(
        error.to_string(),
        format!("the prompt has {} tokens, the context holds 60", tokens + 100)
    );
    assert_eq!(bench.said(), ["one", "two"]);
    let raw = bench.talk.complete_raw(&"x".repeat(100), &[], &mut go_on);
    assert!(matches!(raw, Err(Error::PromptTooLong { tokens: 101, capacity: 60, .. })));
    assert!(bench.talk.complete_raw("", &[], &mut go_on).is_ok());
}

#[test]
fn raw_text_is_continued_as_it_stands() {
    let mut bench = Bench::new(60);
    bench.script("cd<eos>");
    let reply = bench.talk.complete_raw("ab\n<end_of_turn>", &[], &mut go_on).unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("cd", Finish::Stop));
    let mut held = vec![BOS];
    held.extend(bench.ids("ab"));
    held.extend([NEWLINES, END]);
    held.extend(bench.ids("cd"));
    assert_eq!(bench.talk.cache.ids(), held);
    bench.script(&"x".repeat(100));
    let reply = bench.talk.complete_raw("<bos>ab", &[], &mut go_on).unwrap();
    assert_eq!(reply.finish, Finish::Context);
    assert_eq!(reply.tokens.prompt, 3);
    assert!(bench.talk.messages().is_empty());
}

#[test]
fn a_saved_session_goes_on_without_prefill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("talk");
    let system = Some("S".to_owned());
    let mut bench = Bench::with(Scripted::new(300), ConversationOptions { system, ..options() });
    bench.ask("one", "two");
    bench.talk.save(&path).unwrap();

    let mut other = Bench::new(200);
    other.talk.load(&path).unwrap();
    other.assert_in_step();
    assert_eq!(other.talk.system(), Some("S"));
    assert_eq!(other.said(), ["one", "two"]);
    let (here, there) = (bench.ask("three", "four"), other.ask("three", "four"));
    assert_eq!((here.tokens, here.ids), (there.tokens, there.ids));
    assert!(other.steps().iter().sum::<usize>() < there.tokens.prompt - there.tokens.cached + 8);
    // Saving over an old file leaves nothing else in the folder.
    other.talk.save(&path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn fault(result: Result<(), Error>) -> SessionFault {
    match result {
        Err(Error::SessionFile(error)) => error.fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_of_something_else_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("talk");
    let mut bench = Bench::new(300);
    bench.ask("one", "two");
    bench.talk.save(&path).unwrap();

    let other = Scripted { fingerprint: "def", ..Scripted::new(300) };
    let mut other = Bench::with(other, options());
    other.ask("kept", "yes");
    let error = other.talk.load(&path).unwrap_err().to_string();
    assert!(error.ends_with("the session is of another model, M (abc); this one is M (def)"));
    assert_eq!(other.said(), ["kept", "yes"]);
    other.ask("on", "so");

    let mut f32_cache = options();
    f32_cache.decoder.cache = CacheType::F32;
    let mut other = Bench::with(Scripted::new(300), f32_cache);
    let error = other.talk.load(&path).unwrap_err().to_string();
    assert!(error.ends_with("the session's cache is f16; this one is f32"), "{error}");

    let mut small = Bench::new(10);
    assert!(matches!(fault(small.talk.load(&path)), SessionFault::TooLong { capacity: 10, .. }));

    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16] = 2;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(fault(bench.talk.load(&path)), SessionFault::Version { found: 2 }));
    std::fs::write(&path, "# notes\n, and more words than the magic has").unwrap();
    assert!(matches!(fault(bench.talk.load(&path)), SessionFault::NotASession));
    std::fs::write(&path, "").unwrap();
    assert!(matches!(fault(bench.talk.load(&path)), SessionFault::NotASession));
    assert!(matches!(
        fault(bench.talk.load(folder.path())),
        SessionFault::Io(_) | SessionFault::NotASession
    ));
    let gone = folder.path().join("gone");
    assert!(matches!(fault(bench.talk.load(&gone)), SessionFault::Io(_)));
    bench.ask("still", "here");
}

#[test]
fn a_damaged_session_leaves_the_conversation_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("talk");
    let mut bench = Bench::new(300);
    bench.ask("one", "two");
    bench.talk.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(41) {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(bench.talk.load(&path).is_err(), "cut to {length} bytes");
    }
    assert_eq!(bench.said(), ["one", "two"]);
    std::fs::write(&path, &whole).unwrap();
    bench.talk.load(&path).unwrap();
    bench.ask("three", "four");
}

#[test]
fn the_hint_offers_no_context_beyond_what_the_model_was_trained_for() {
    let hint = |tokens| {
        let error = Error::PromptTooLong { tokens, capacity: 60, trained: 100 };
        error.hint().unwrap()
    };
    assert_eq!(hint(99), "--ctx-size 100 or more would hold it");
    assert!(!hint(100).contains("--ctx-size") && hint(100).contains("trained for 100"));
    let full = |tokens| Error::ContextFull { tokens, capacity: 60, trained: 100 }.hint().unwrap();
    assert!(full(99).ends_with("--ctx-size 100 or more"));
    assert!(full(100).ends_with("--context-full drop"));
}
