//! Metadata values as text for people and as JSON.

use serde_json::{Value as Json, json};

use crate::gguf::{Array, Value};

/// Elements of a long array that people see.
const SHOWN: usize = 16;
/// Elements of a long array that JSON shows.
const SHOWN_JSON: usize = 8;

/// The value's type, of arrays the elements' too.
pub(super) fn type_name(value: &Value<'_>) -> String {
    match value {
        Value::Array(array) => format!("array of {}", array.element_type().name()),
        _ => value.value_type().name().to_string(),
    }
}

/// The value for people; an array is cut after 16 elements.
pub(super) fn text(value: &Value<'_>) -> String {
    match value {
        Value::String(bytes) => printable(bytes),
        Value::Array(array) => array_text(array),
        Value::F32(x) => x.to_string(),
        Value::F64(x) => x.to_string(),
        Value::Bool(x) => x.to_string(),
        _ => value.as_integer().map(|x| x.to_string()).unwrap_or_default(),
    }
}

fn array_text(array: &Array<'_>) -> String {
    let element = |value: Value<'_>| match value {
        Value::String(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        other => text(&other),
    };
    let shown: Vec<String> = array.iter().take(SHOWN).map(element).collect();
    let cut =
        if array.len() > SHOWN { format!(", … {} in all", array.len()) } else { String::new() };
    format!("[{}{cut}]", shown.join(", "))
}

/// The value as JSON; an array of more than `longest` elements is described by its start.
pub(super) fn json(value: &Value<'_>, longest: usize) -> Json {
    match value {
        Value::String(bytes) => Json::from(String::from_utf8_lossy(bytes)),
        Value::Bool(x) => Json::from(*x),
        Value::F32(x) => float(f64::from(*x), x.to_string()),
        Value::F64(x) => float(*x, x.to_string()),
        Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_) => {
            Json::from(value.as_integer().and_then(|x| i64::try_from(x).ok()))
        }
        Value::U8(_) | Value::U16(_) | Value::U32(_) | Value::U64(_) => {
            Json::from(value.as_integer().and_then(|x| u64::try_from(x).ok()))
        }
        Value::Array(array) if array.len() > longest => json!({
            "type": array.element_type().name(),
            "len": array.len(),
            "first": array.iter().take(SHOWN_JSON).map(|x| json(&x, longest)).collect::<Vec<_>>(),
        }),
        Value::Array(array) => array.iter().map(|x| json(&x, longest)).collect(),
    }
}

/// A float by its shortest digits (`1e-6`, not the nearest f64 of an f32); what JSON lacks as text.
fn float(x: f64, digits: String) -> Json {
    match digits.parse::<f64>() {
        Ok(short) if short.is_finite() => Json::from(short),
        _ if x.is_nan() => Json::from("nan"),
        _ if x > 0.0 => Json::from("inf"),
        _ => Json::from("-inf"),
    }
}

/// Text from a file, safe to put on a terminal: control characters but newline and tab are
/// escaped.
pub(super) fn printable(bytes: &[u8]) -> String {
    let mut out = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// As [`printable`], on one line.
pub(super) fn one_line(bytes: &[u8]) -> String {
    printable(bytes).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_keep_their_short_form_and_json_has_no_infinity() {
        assert_eq!(json(&Value::F32(1e-6), 8).to_string(), "1e-6");
        assert_eq!(json(&Value::F32(0.95), 8).to_string(), "0.95");
        assert_eq!(json(&Value::F32(f32::NEG_INFINITY), 8).to_string(), "\"-inf\"");
        assert_eq!(json(&Value::F64(f64::NAN), 8).to_string(), "\"nan\"");
        assert_eq!(json(&Value::U64(u64::MAX), 8).to_string(), "18446744073709551615");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable(b"a\x1b[31mb\nc"), "a\\u{1b}[31mb\nc");
        assert_eq!(one_line(b"a\nb\tc\r"), "a b c\\r");
    }
}
