use gemma3n::gguf::Gguf;
use gemma3n::model::text::{CacheType, Kernels};
use gemma3n::verify;
use std::path::Path;
use std::sync::Arc;
#[test]
fn scratch() {
    let model = std::env::var("M").unwrap();
    let gguf = Arc::new(Gguf::open(Path::new(&model)).unwrap());
    let k = if std::env::var("K").is_ok() { Kernels::Auto } else { Kernels::Ggml };
    for f in std::env::var("R").unwrap().split(',') {
        let r = verify::run(
            &gguf,
            Path::new(f),
            verify::Options { cache: CacheType::F32, threads: 2, kernels: k, tolerance: None },
        )
        .unwrap();
        println!(
            "{} tokens {} taps {} unread {:?} worst {:?} first {:?} greedy {}/{}",
            r.case,
            r.tokens,
            r.taps.len(),
            r.unread,
            r.worst(),
            r.first_failure(),
            r.greedy.agreeing(),
            r.greedy.expected.len()
        );
        if std::env::var("V").is_ok() {
            for t in &r.taps {
                println!("   {:40} {:e}", t.name, t.error);
            }
        }
    }
}
