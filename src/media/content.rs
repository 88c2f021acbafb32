//! What the start of a file tells about files of no format in particular.

/// The start as text, if it can be text; a character cut off at its end is left out.
pub(super) fn text(start: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    text.chars().all(|c| !c.is_control() || c.is_whitespace()).then_some(text)
}

/// Whether a text begins as HTML pages do, which downloads that failed leave behind.
pub(super) fn is_html(text: &str) -> bool {
    let lower = text.trim_start_matches('\u{feff}').trim_start().to_lowercase();
    lower.starts_with("<!doctype html") || lower.starts_with("<html")
}

/// What to call a file that nothing is known of.
pub(super) fn first_bytes(start: &[u8]) -> String {
    let shown: Vec<String> = start.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("starts with the bytes {}", shown.join(" "))
}
