//! What the user should know of a choice of types before it is carried out.

use super::choice::{Candidate, Choice, Reason, Wanted};
use super::preset::Family;

/// A sentence each, for all tensors of a file and their choices.
pub fn of(wanted: &Wanted, tensors: &[Candidate], choices: &[Choice]) -> Vec<String> {
    let pairs = || tensors.iter().zip(choices);
    let mut notices = Vec::new();
    let fallbacks: Vec<_> = pairs()
        .filter_map(|(tensor, choice)| match choice.reason {
            Reason::Fallback(meant) => Some((tensor.name, meant, choice.ty)),
            _ => None,
        })
        .collect();
    if let [(first, meant, ty), ..] = fallbacks[..] {
        let count = fallbacks.len();
        notices.push(format!(
            "{count} tensors do not fit the type meant for them and get another, the first {first} \
             ({meant}: {ty})"
        ));
    }
    for (pattern, ty) in &wanted.patterns {
        let mut changing = pairs().filter(|(_, choice)| choice.reason != Reason::Kept);
        if !changing.any(|(tensor, _)| pattern.is_match(tensor.name)) {
            notices.push(format!("{pattern}={ty} is for no tensor whose type may change"));
        }
    }
    if pairs().any(|(tensor, choice)| choice.is_neuron_major(tensor.name)) {
        notices.push("ffn_down of sparse layers is neuron-major: only gemma3n loads it".to_owned());
    } else if wanted.preset.family == Family::NeuronMajor {
        notices.push("no layer is sparse, so nothing is neuron-major".to_owned());
    }
    notices
}
