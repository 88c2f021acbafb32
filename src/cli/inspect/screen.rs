//! The report for people: one screen, a label and its facts on each line.

use super::facts::{Report, Tokenizer};
use super::model::{GEMMA3N, Model, NEURON_MAJOR};

/// Width of the labels.
const LABEL: usize = 12;
/// Names on a line of slices.
const SLICES: usize = 6;

/// Renders a report, without a newline at its end.
pub(super) fn render(report: &Report) -> String {
    let mut screen = Screen(Vec::new());
    screen.line("file", &file(report));
    screen.line("model", &title(report));
    screen.line("licence", report.licence.as_deref().unwrap_or("not stated"));
    if let Some(model) = &report.model {
        shape(&mut screen, model);
    }
    let of = format!("{}, {:.2} bits a weight", count(report.parameters), report.bits_per_weight);
    screen.line("parameters", &of);
    for (i, share) in report.types.iter().enumerate() {
        let percent = format!("{:.1} %", share.share * 100.0);
        let tensors = plural(share.tensors, "tensor");
        let line = format!("{:8} {percent:>7}  {:>10}  {tensors}", share.ty, size(share.bytes));
        screen.line(if i == 0 { "types" } else { "" }, &line);
    }
    for tower in &report.towers {
        let projector = tower.projector.as_deref().unwrap_or("projector not stated");
        let tensors = plural(tower.tensors, "tensor");
        screen.line(tower.kind, &format!("{projector}, {tensors}, {}", size(tower.bytes)));
    }
    for (i, names) in report.slices.chunks(SLICES).enumerate() {
        screen.line(if i == 0 { "slices" } else { "" }, &names.join(" "));
    }
    if let Some(tokenizer) = &report.tokenizer {
        screen.line("tokenizer", &describe(tokenizer));
    }
    screen.line("metadata", &plural(report.metadata.len() as u64, "key"));
    for (i, remark) in report.odd.iter().enumerate() {
        screen.line(if i == 0 { "odd" } else { "" }, remark);
    }
    if let Some(tensors) = &report.tensors {
        screen.0.push(String::new());
        for tensor in tensors {
            let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
            screen.0.push(format!(
                "{:36} {:8} {:>22} {:>11}",
                tensor.name,
                tensor.ty,
                shape.join(" x "),
                size(tensor.bytes)
            ));
        }
    }
    screen.0.join("\n")
}

struct Screen(Vec<String>);

impl Screen {
    fn line(&mut self, label: &str, facts: &str) {
        self.0.push(format!("{label:LABEL$}{facts}").trim_end().to_string());
    }
}

fn file(report: &Report) -> String {
    let parts = match report.parts {
        1 => String::new(),
        n => format!(" in {n} parts"),
    };
    format!("{}, {}{parts}", report.file, size(report.bytes))
}

fn title(report: &Report) -> String {
    let architecture = report.architecture.as_deref().unwrap_or("architecture not stated");
    let mut title = match architecture {
        GEMMA3N => "Gemma 3n text".to_string(),
        "clip" => "towers (mmproj)".to_string(),
        other => match report.kind.as_deref() {
            Some(kind) if kind != "model" => format!("{other}, {kind}"),
            _ => format!("{other}, not a Gemma 3n model"),
        },
    };
    if let Some(size) = report.model.as_ref().and_then(|model| model.size.as_deref()) {
        title += &format!(", {size}");
    }
    if let Some(name) = &report.name {
        title += &format!(", \"{name}\"");
    }
    title
}

fn shape(screen: &mut Screen, model: &Model) {
    let number = |x: Option<u64>| x.map_or("?".to_string(), |x| x.to_string());
    let mut layers = format!("{}, {} wide", number(model.layers), number(model.width));
    layers += &match (model.ffn.iter().min(), model.ffn.iter().max()) {
        (Some(least), Some(most)) if least != most => format!(", FFN {least} to {most}"),
        (Some(least), _) => format!(", FFN {least}"),
        _ => String::new(),
    };
    if let Some(sparse) = model.sparse_layers.filter(|&n| n > 0) {
        layers += &format!(" ({sparse} sparse)");
    }
    screen.line("layers", &layers);
    let mut attention = format!(
        "{} heads of {}, {} for K and V",
        number(model.heads),
        number(model.head_size),
        number(model.kv_heads)
    );
    if let (Some(sliding), Some(window)) = (model.sliding_layers, model.window) {
        attention += &format!("; {sliding} layers see {window} back");
    }
    if let Some(shared) = model.shared_kv_layers.filter(|&n| n > 0) {
        attention += &format!(", the last {shared} share K and V");
    }
    screen.line("attention", &attention);
    if let (Some(width), Some(streams)) = (model.per_layer_width, model.altup_streams) {
        let line = format!("{width} wide a layer; {streams} AltUp streams");
        screen.line("per layer", &line);
    }
    screen.line("context", &format!("{} tokens", number(model.context)));
    if let Some(layout) = model.layout {
        let name = match layout {
            NEURON_MAJOR => "ffn_down of sparse layers neuron-major; loads in gemma3n only",
            _ => "not known to this version",
        };
        screen.line("layout", &format!("{layout}, {name}"));
    }
}

fn describe(tokenizer: &Tokenizer) -> String {
    let mut line = format!(
        "{}, {} tokens",
        tokenizer.model.as_deref().unwrap_or("kind not stated"),
        tokenizer.tokens
    );
    for (name, id) in [("bos", tokenizer.bos), ("eos", tokenizer.eos)] {
        if let Some(id) = id {
            line += &format!(", {name} {id}");
        }
    }
    if let Some(bytes) = tokenizer.chat_template {
        line += &format!(", chat template of {bytes} bytes");
    }
    line
}

/// `1 tensor`, `2 tensors`.
fn plural(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Bytes in the largest unit that keeps at least one digit before the point.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

/// A number of parameters: `4.46 B`, `266 M`.
fn count(n: u64) -> String {
    match n {
        0..1_000_000 => n.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.00 KiB");
        assert_eq!(size(3 << 29), "1.50 GiB");
        assert_eq!(count(999_999), "999999");
        assert_eq!(count(268_098_176), "268.1 M");
        assert_eq!(count(4_460_000_000), "4.46 B");
        assert_eq!((plural(1, "key"), plural(2, "key")), ("1 key".into(), "2 keys".into()));
    }
}
