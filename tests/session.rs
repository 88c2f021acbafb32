//! Conversations on a real model: answers, what is read again, and going on from a file.

#[path = "support/models.rs"]
mod models;
#[path = "support/shared.rs"]
mod shared;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gemma3n::checkpoint::Float;
use gemma3n::session::{
    CacheType, ContextFull, Conversation, ConversationOptions, DecoderOptions, Engine,
    EngineOptions, Event, Finish, Kernels, ModelSource, Reply, Role, SamplerOptions, TokenId,
    TowerOptions,
};

/// A fixture as a GGUF file in F32.
fn converted(fixture: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let source = models::fixtures().join(fixture);
    let path = models::converted(&source, Float::F32, folder.path()).path().to_path_buf();
    (folder, path)
}

fn tiny() -> &'static Path {
    static TINY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &TINY.get_or_init(|| converted("tiny")).1
}

fn engine(path: &Path) -> Arc<Engine> {
    let model = ModelSource::File(path.to_path_buf());
    let options = EngineOptions {
        model,
        towers: None,
        tower_options: TowerOptions::default(),
        template: None,
        slice: None,
        mmap: true,
        mlock: false,
    };
    Engine::open(&options).unwrap()
}

fn options() -> ConversationOptions {
    ConversationOptions {
        decoder: DecoderOptions {
            context: 256,
            batch: 24,
            cache: CacheType::F32,
            threads: 1,
            kernels: Kernels::Auto,
        },
        sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        system: None,
        context_full: ContextFull::Drop,
        stops: Vec::new(),
        max_tokens: Some(24),
        ignore_eos: true,
    }
}

fn go_on(_: Event<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn ask(talk: &mut Conversation, text: &str) -> Reply {
    talk.push_user(text);
    talk.reply(&mut go_on).unwrap()
}

/// Case `text_chat` of the oracle: transformers 5.23, F32, greedy.
#[test]
fn a_chat_is_continued_as_the_reference_continues_it() {
    const RENDERED: &str = "<bos><start_of_turn>user\nYou are a helpful assistant.\n\n\
        What is the sum of 3 and 14?<end_of_turn>\n<start_of_turn>model\nIt is 17.<end_of_turn>\n\
        <start_of_turn>user\nAnd times 2?<end_of_turn>\n<start_of_turn>model\n";
    const GREEDY: [u32; 24] = [
        251, 554, 389, 32, 201, 548, 445, 440, 534, 986, 587, 735, 336, 91, 1000, 820, 329, 464,
        619, 598, 505, 956, 945, 711,
    ];
    let Some(shared) = shared::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = models::converted(&shared.join("oracle/text"), Float::F32, folder.path());
    let path = model.path();
    let mut talk = Conversation::new(engine(path), options()).unwrap();
    let reply = talk.complete_raw(RENDERED, &[], &mut go_on).unwrap();
    assert_eq!(reply.tokens.prompt, 64);
    assert_eq!(reply.ids, GREEDY.map(TokenId));
    assert_eq!(reply.finish, Finish::Length);
    // The same words as a conversation are the same tokens: the cache holds the whole prompt.
    let mut talk = Conversation::new(engine(path), options()).unwrap();
    talk.set_system(Some("You are a helpful assistant.".to_owned()));
    let question = ask(&mut talk, "What is the sum of 3 and 14? ");
    let opening = talk.complete_raw(&RENDERED[..RENDERED.find("It is").unwrap()], &[], &mut go_on);
    let opening = opening.unwrap();
    assert_eq!(opening.ids, question.ids);
    assert_eq!(opening.tokens.cached, question.tokens.prompt - 1);
}

#[test]
fn turns_on_a_kept_cache_equal_turns_read_anew() {
    let path = tiny();
    let engine = engine(path);
    let mut kept = Conversation::new(engine.clone(), options()).unwrap();
    ask(&mut kept, "one");
    let second = ask(&mut kept, "two");
    assert!(second.tokens.cached > 0);
    kept.retry();
    let again = kept.reply(&mut go_on).unwrap();
    assert_eq!(again.ids, second.ids);
    assert_eq!(again.tokens.prompt, second.tokens.prompt);

    // A conversation with nothing in its cache, that has said the same.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk");
    kept.save(&file).unwrap();
    let mut anew = Conversation::new(engine, options()).unwrap();
    anew.load(&file).unwrap();
    anew.retry();
    anew.complete_raw("something else altogether", &[], &mut go_on).unwrap();
    let anew = anew.reply(&mut go_on).unwrap();
    assert!(anew.tokens.cached < 3, "{}", anew.tokens.cached);
    assert_eq!(anew.ids, second.ids);
    assert_eq!(anew.text, second.text);
}

#[test]
fn a_loaded_session_goes_on_as_if_it_had_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk");
    let random = SamplerOptions { temperature: 1.0, seed: Some(7), ..SamplerOptions::default() };
    // Blocks of q8_0 need the heads of the other fixture.
    let (_folder, wide) = converted("wide");
    let cases = [(tiny(), CacheType::F32), (tiny(), CacheType::F16), (&wide, CacheType::Q8_0)];
    for (path, cache) in cases {
        let mut options = ConversationOptions { sampler: random.clone(), ..options() };
        options.decoder.cache = cache;
        options.system = Some("Be brief.".to_owned());
        let mut first = Conversation::new(engine(path), options.clone()).unwrap();
        // Longer than the sliding window, so that its ring has turned.
        ask(&mut first, "one, two, three, four, five, six");
        first.save(&file).unwrap();
        let on = ask(&mut first, "and then?");

        options.system = None;
        let mut second = Conversation::new(engine(path), options).unwrap();
        second.load(&file).unwrap();
        assert_eq!(second.system(), Some("Be brief."));
        assert_eq!(second.messages().len(), 2);
        assert_eq!(second.messages()[1].role, Role::Model);
        let loaded = ask(&mut second, "and then?");
        assert_eq!(loaded.ids, on.ids, "{cache:?}");
        assert_eq!(loaded.text, on.text);
        assert_eq!(loaded.tokens, on.tokens, "{cache:?}");
    }
}

#[test]
fn a_long_conversation_stays_within_its_context() {
    let path = tiny();
    let mut options = options();
    options.decoder.context = 128;
    options.system = Some("Be brief.".to_owned());
    let mut talk = Conversation::new(engine(path), options).unwrap();
    let mut dropped = 0;
    for turn in 0..8 {
        talk.push_user(&format!("question number {turn}"));
        let reply = talk
            .reply(&mut |event| {
                if let Event::TurnsDropped { turns, .. } = event {
                    dropped += turns;
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(reply.finish, Finish::Length);
        let usage = talk.context_usage();
        assert!(usage.used <= usage.capacity);
    }
    assert!(dropped > 0);
    assert_eq!(talk.messages().len(), 16 - 2 * dropped);
}

#[test]
fn another_model_refuses_the_session() {
    let path = tiny();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.gguf");
    let mut bytes = std::fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&other, bytes).unwrap();
    let file = folder.path().join("talk");
    let mut talk = Conversation::new(engine(path), options()).unwrap();
    ask(&mut talk, "one");
    talk.save(&file).unwrap();
    let mut talk = Conversation::new(engine(&other), options()).unwrap();
    let error = talk.load(&file).unwrap_err().to_string();
    assert!(error.contains("the session is of another model"), "{error}");
}
