use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::*;
use crate::model::text::{CacheType, DecoderOptions, Kernels};
use crate::session::conversation::ContextFull;
use crate::session::script::{self, Log, Scripted};
use crate::tokenizer::Specials;

/// Soft tokens of a clip.
const SOUND: usize = 5;

fn options() -> ConversationOptions {
    ConversationOptions {
        decoder: DecoderOptions {
            context: 0,
            batch: 64,
            cache: CacheType::F16,
            threads: 1,
            kernels: Kernels::Auto,
        },
        sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        system: None,
        context_full: ContextFull::Stop,
        stops: Vec::new(),
        max_tokens: None,
        ignore_eos: false,
    }
}

struct Bench {
    ears: Transcriber,
    log: Arc<Mutex<Log>>,
    heard: Vec<String>,
}

impl Bench {
    fn with(decoder: Scripted, options: ConversationOptions, request: Request) -> Self {
        let log = decoder.log.clone();
        let language = Arc::new(script::gemma());
        let decoder = Box::new(decoder);
        let ears = Transcriber::with_decoder(language, "m.gguf".into(), decoder, options, request)
            .unwrap();
        Self { ears, log, heard: Vec::new() }
    }

    fn new() -> Self {
        Self::with(Scripted::new(2000), options(), Request::default())
    }

    fn ids(&self, text: &str) -> Vec<TokenId> {
        self.ears.language.tokenizer().encode(text, Specials::Parse)
    }

    /// The model will say this, one token a character.
    fn script(&self, text: &str) {
        let ids = self.ids(text);
        self.log.lock().unwrap().answers.extend(ids);
    }

    fn clip(&mut self, value: f32, seconds: f64) -> Passage {
        let sound = Arc::new(SoftTokens::new("a.wav", 2, vec![value; 2 * SOUND]));
        let heard = &mut self.heard;
        heard.clear();
        let passage = self.ears.transcribe(sound, seconds, &mut |event| {
            heard.push(match event {
                Hearing::Words(words) => words.to_owned(),
                Hearing::Again => "[again]".to_owned(),
            });
            ControlFlow::Continue(())
        });
        passage.unwrap()
    }
}

#[test]
fn what_stands_before_the_sound_is_read_once() {
    let mut bench = Bench::new();
    bench.script("one<end_of_turn>two<end_of_turn>");
    let first = bench.clip(1.0, 3.0);
    assert_eq!((first.text.as_str(), first.truncated, first.again), ("one", false, false));
    assert_eq!(bench.heard.concat(), "one");
    let held = bench.log.lock().unwrap().held.clone();
    let placeholder = bench.ids("<audio_soft_token>")[0];
    let before = held.iter().take_while(|id| **id != placeholder).count();
    assert!(before >= 6, "{held:?}");
    assert_eq!((first.timings.cached, first.timings.prefilled), (0, first.tokens.prompt));
    let steps = std::mem::take(&mut bench.log.lock().unwrap().steps);
    assert_eq!(steps[0], before);
    assert_eq!(steps.iter().sum::<usize>(), first.tokens.prompt + "one".len());

    let second = bench.clip(2.0, 3.0);
    assert_eq!(second.text, "two");
    assert_eq!(second.tokens.prompt, first.tokens.prompt);
    let kept = second.timings.cached;
    assert_eq!(kept, before);
    assert_eq!(second.timings.prefilled, second.tokens.prompt - kept);
    let read: usize = bench.log.lock().unwrap().steps.iter().sum();
    assert_eq!(read, second.timings.prefilled + "two".len());
}

#[test]
fn the_probability_is_that_of_the_logits() {
    let mut bench = Bench::new();
    bench.script("hi<end_of_turn>");
    // A script's logits are 9 for the next token and 0 for the 511 others.
    let expected = 9.0 - (9f64.exp() + 511.0).ln();
    let passage = bench.clip(1.0, 1.0);
    assert!((passage.avg_logprob.unwrap() - expected).abs() < 1e-6, "{passage:?}");
    assert_eq!(passage.tokens.generated, 3);
    // Of 32 tokens one is certain and the others cannot be.
    let mut logits = vec![-1e30f32; 32];
    logits[3] = 30.0;
    assert_eq!(logprob(&logits, TokenId(3)), 0.0);
    assert!((logprob(&[0.5; 8], TokenId(7)) + 8f64.ln()).abs() < 1e-12);
}

#[test]
fn a_run_away_is_heard_again() {
    let mut bench = Bench::new();
    bench.script(&format!("well {}", "ha".repeat(32)));
    bench.script("all  good\n now <end_of_turn>");
    let passage = bench.clip(1.0, 30.0);
    assert_eq!(passage.text, "all good now");
    assert!(passage.again && !passage.truncated);
    // What was said before repetition was likely is out, and nothing after that.
    let (again, words) = bench.heard.split_last().unwrap();
    assert_eq!(again, "[again]");
    assert_eq!(words.concat(), format!("well {}", "ha".repeat(12)).split_at(5 + 23).0);
    assert!(passage.timings.generated > 64 + 5 && passage.tokens.generated < 20);
}

#[test]
fn a_second_run_away_is_cut() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.script(&format!("well {}", "so it is. ".repeat(7).split_at(66).0));
    }
    let passage = bench.clip(1.0, 30.0);
    assert!(passage.again && passage.truncated, "{passage:?}");
    assert_eq!(passage.text, "well so it is.");
    assert_eq!(passage.tokens.generated, "well so it is.".len());
}

#[test]
fn what_cannot_be_said_in_the_time_is_cut_too() {
    let mut bench = Bench::new();
    let long: String = ('!'..='~').cycle().take(32 + 20).collect();
    bench.script(&long);
    bench.script(&long);
    let passage = bench.clip(1.0, 1.0);
    assert!(passage.again && passage.truncated);
    assert_eq!(passage.tokens.generated, 32 + 20);
    assert_eq!(passage.text, long);
}

#[test]
fn the_users_own_limit_is_no_run_away() {
    let limited = ConversationOptions { max_tokens: Some(3), ..options() };
    let mut bench = Bench::with(Scripted::new(2000), limited, Request::default());
    bench.script("abcdef");
    let passage = bench.clip(1.0, 30.0);
    assert_eq!((passage.text.as_str(), passage.again, passage.truncated), ("abc", false, true));
}

#[test]
fn a_translation_is_told_from_what_was_said() {
    let request = Request { translate: Some("French".into()), ..Request::default() };
    let mut bench = Bench::with(Scripted::new(2000), options(), request);
    bench.script("It is.\nFrench: Voila.<end_of_turn>");
    let passage = bench.clip(1.0, 3.0);
    assert_eq!(passage.text, "Voila.");
    assert_eq!(passage.transcription.as_deref(), Some("It is."));
}

#[test]
fn a_clip_that_does_not_fit_is_refused() {
    let mut bench = Bench::with(Scripted::new(20), options(), Request::default());
    let sound = Arc::new(SoftTokens::new("a.wav", 2, vec![0.0; 2 * SOUND]));
    let refused = bench.ears.transcribe(sound, 1.0, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(Error::PromptTooLong { capacity: 20, .. })));
    // One that fits gets as many tokens as are left, whatever its length.
    let mut bench = Bench::with(Scripted::new(150), options(), Request::default());
    bench.script(&('!'..='~').collect::<String>());
    let passage = bench.clip(1.0, 30.0);
    assert!(passage.tokens.prompt + passage.tokens.generated <= 150, "{passage:?}");
}

#[test]
fn an_interruption_ends_a_clip() {
    let mut bench = Bench::new();
    let flag = Arc::new(AtomicBool::new(false));
    bench.ears.set_interrupt(flag.clone());
    bench.script("abcdef");
    let sound = Arc::new(SoftTokens::new("a.wav", 2, vec![0.0; 2 * SOUND]));
    let passage = bench.ears.transcribe(sound, 9.0, &mut |_| {
        flag.store(true, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    let passage = passage.unwrap();
    assert!(passage.interrupted && !passage.truncated, "{passage:?}");
    assert_eq!(passage.text, "a");
}
