//! Writing what `verify` reads.

use std::path::Path;

use anyhow::{Result, ensure};
use gemma3n::{
    gguf::{Layout, OwnedValue, TensorType, Writer},
    verify::reference::Reference,
};

/// Writes a reference as a GGUF file, over an existing one.
pub fn write(reference: &Reference, path: &Path) -> Result<()> {
    let integers = |numbers: &[usize]| {
        let numbers = numbers.iter().map(|n| i32::try_from(*n)).collect::<Result<Vec<_>, _>>();
        Ok::<_, anyhow::Error>(OwnedValue::from(numbers?))
    };
    let mut layout = Layout::default();
    layout.set("general.type", "reference");
    layout.set("reference.case", reference.case.as_str());
    layout.set("reference.model_fingerprint", reference.model_fingerprint.as_str());
    layout.set("reference.tolerances", serde_json::to_string(&reference.tolerances)?.as_str());
    layout.set("reference.tokens", reference.tokens.clone());
    layout.set("reference.media", reference.media.clone());
    layout.set("reference.greedy_ids", reference.greedy_ids.clone());
    if !reference.greedy_steps.is_empty() {
        layout.set("reference.greedy_steps", integers(&reference.greedy_steps)?);
    }
    for tap in &reference.taps {
        ensure!((1..=4).contains(&tap.ne.len()), "{}: {} dimensions", tap.name, tap.ne.len());
        let mut ne = [1; 4];
        ne.iter_mut().zip(&tap.ne).for_each(|(to, from)| *to = *from as u64);
        layout.add_tensor(&tap.name, ne, tap.ne.len() as u32, TensorType::F32);
        if let Some(rows) = &tap.rows {
            layout.set(&format!("reference.rows.{}", tap.name), integers(rows)?);
        }
    }
    let mut writer = Writer::create(path, &layout, true)?;
    for tap in &reference.taps {
        let bytes: Vec<u8> = tap.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.append(&tap.name, &bytes)?;
    }
    writer.finish()?;
    Ok(())
}
