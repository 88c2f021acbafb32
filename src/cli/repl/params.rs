//! `/set` and `/params`: how answers are drawn, changed while talking.

use crate::cli::chat::told;
use crate::cli::options::{self, Limit};
use crate::session::Conversation;

/// What can be set; named as the flags are.
pub const NAMES: [&str; 9] = [
    "temp",
    "top-k",
    "top-p",
    "min-p",
    "repeat-penalty",
    "repeat-last-n",
    "seed",
    "predict",
    "stop",
];

/// Changes one parameter from now on.
///
/// # Errors
/// No such parameter, or a value that it cannot have; the message says what can be.
pub fn set(chat: &mut Conversation, name: &str, value: &str) -> anyhow::Result<()> {
    let mut sampler = chat.options().sampler.clone();
    let typed = name.replace('_', "-");
    let result = match typed.as_str() {
        "temp" | "temperature" => {
            options::temperature(value).map(|value| sampler.temperature = value)
        }
        "top-k" => options::number(value).map(|value| sampler.top_k = value),
        "top-p" => options::top_p(value).map(|value| sampler.top_p = value),
        "min-p" => options::min_p(value).map(|value| sampler.min_p = value),
        "repeat-penalty" => {
            options::repeat_penalty(value).map(|value| sampler.repeat_penalty = value)
        }
        "repeat-last-n" => options::number(value).map(|value| sampler.repeat_last_n = value),
        "seed" if value == "random" => {
            sampler.seed = Some(options::random_seed());
            Ok(())
        }
        "seed" => options::number(value).map(|value| sampler.seed = Some(value)),
        "predict" => {
            let Limit(limit) = options::predict(value)
                .map_err(|error| anyhow::anyhow!("predict {value}: {error}"))?;
            chat.set_max_tokens(limit);
            return Ok(());
        }
        "stop" => {
            // A lone - takes all away, like /system's.
            let stops = if value == "-" { Vec::new() } else { vec![value.to_owned()] };
            chat.set_stops(stops);
            return Ok(());
        }
        _ => anyhow::bail!("no parameter {name}; there are {}", NAMES.join(", ")),
    };
    result.map_err(|error| anyhow::anyhow!("{typed} {value}: {error}"))?;
    chat.set_sampler(sampler).map_err(told)
}

/// All parameters with their values, one a line.
pub fn shown(chat: &Conversation) -> String {
    let options = chat.options();
    let sampler = &options.sampler;
    let limit = options.max_tokens.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
    let stops = if options.stops.is_empty() { "-".to_owned() } else { options.stops.join(" | ") };
    let values = [
        sampler.temperature.to_string(),
        sampler.top_k.to_string(),
        sampler.top_p.to_string(),
        sampler.min_p.to_string(),
        sampler.repeat_penalty.to_string(),
        sampler.repeat_last_n.to_string(),
        sampler.seed.unwrap_or_default().to_string(),
        limit,
        stops,
    ];
    let lines: Vec<String> =
        NAMES.iter().zip(values).map(|(name, value)| format!("  {name:<15} {value}")).collect();
    lines.join("\n")
}
